"""Attention by kernels of libraries: torch's fused one, torch's and flash-attn's over sequences of any lengths."""

import functools
import importlib
import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F

from models.layers.kernels import plain, samples
from models.layers.kernels.agreement import agrees, chosen

logger = logging.getLogger(__name__)

FusedAttention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor]
"""Q [b, Q, Tq, D], k and v [b, K, Tk, D], mask added to the scores or None (causal), scale -> [b, Q, Tq, D]."""

PagedKernel = Callable[..., torch.Tensor]
"""flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=, causal=,
window_size=, block_table=)."""

GatheredKernel = Callable[..., torch.Tensor]
"""kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, window_size): causal, any number of query
heads to a key head."""

WindowSize = tuple[int, int]
"""How many keys before a query's own it sees, and how many after; -1: all of them."""

PAGE = 256  # flash-attn's paged kernel takes multiples of this


@functools.cache
def fused_attention(dtype: torch.dtype, device_type: str) -> FusedAttention:
    """Attention over padded sequences."""
    return chosen(
        "torch's fused attention",
        dtype,
        library=_scaled_dot_product,
        plain=plain.attention,
        samples=samples.padded(dtype, torch.device(device_type)),
    )


def _scaled_dot_product(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


@functools.cache
def paged_attention(dtype: torch.dtype, device_type: str) -> PagedKernel | None:
    """flash-attn's kernel, which walks pages through a table; None if it is not installed or
    wrong."""
    try:
        kernel: PagedKernel = importlib.import_module("flash_attn").flash_attn_varlen_func
    except ModuleNotFoundError:
        return None
    except (ImportError, AttributeError) as error:
        logger.warning("flash-attn is installed, but cannot be used: %s", error)
        return None
    return kernel if is_right_paged(kernel, dtype, torch.device(device_type)) else None


@functools.cache
def gathered_attention(dtype: torch.dtype, device_type: str) -> GatheredKernel | None:
    """Torch's own kernel for sequences of any lengths, packed; None if it is wrong."""
    kernel = _torch_varlen()
    return kernel if is_right_gathered(kernel, dtype, torch.device(device_type)) else None


def has_windows() -> bool:
    """Whether the kernel that `gathered_attention` gives can leave out keys that lie too far back."""
    from torch.nn.attention import varlen

    return "window_size" in inspect.signature(varlen.varlen_attn).parameters


def is_right_paged(kernel: PagedKernel, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether it agrees with plain attention; else says so."""
    return agrees(
        "flash-attn's attention",
        dtype,
        library=partial(_through_pages, kernel),
        plain=plain.varlen_attention,
        samples=samples.varlen(dtype, device, slides=True),
    )


def is_right_gathered(kernel: GatheredKernel, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether it agrees with plain attention; else says so."""
    return agrees(
        "torch's variable-length attention",
        dtype,
        library=kernel,
        plain=plain.varlen_attention,
        samples=samples.varlen(dtype, device, slides=has_windows()),
    )


def _through_pages(
    kernel: PagedKernel,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_queries: torch.Tensor,
    cu_keys: torch.Tensor,
    max_queries: int,
    max_keys: int,
    scale: float,
    window_size: WindowSize,
) -> torch.Tensor:
    """The same over keys and values that lie in pages: of each sequence the last page first."""
    width = -(-max_keys // PAGE)
    tables = torch.arange((cu_keys.numel() - 1) * width, dtype=torch.int32, device=q.device).view(-1, width).flip(1)
    pages = [x.new_zeros(tables.numel(), PAGE, *x.shape[1:]) for x in (k, v)]
    for each, x in zip(pages, (k, v), strict=True):
        for table, tokens in zip(tables.tolist(), x.split(cu_keys.diff().tolist()), strict=True):
            for page, part in zip(table, tokens.split(PAGE), strict=False):
                each[page, : part.shape[0]] = part
    return kernel(
        q,
        *pages,
        cu_queries,
        cu_keys,
        max_queries,
        max_keys,
        softmax_scale=scale,
        causal=True,
        window_size=window_size,
        block_table=tables.contiguous(),
    )


def _torch_varlen() -> GatheredKernel:
    """Torch's variable-length kernel behind one signature; how it is told to be causal, and of fewer key heads, has
    changed between releases."""
    from torch.nn.attention import varlen

    varlen_attn = cast("Callable[..., torch.Tensor]", varlen.varlen_attn)
    parameters = inspect.signature(varlen_attn).parameters

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> torch.Tensor:
        *boundaries, scale, window_size = rest
        options: dict[str, object] = {"window_size": window_size} if has_windows() else {"is_causal": True}
        if "scale" in parameters:
            options["scale"] = scale
        else:  # older kernels always divide by sqrt(D)
            q = q * (scale * q.shape[-1] ** 0.5)
        if "enable_gqa" in parameters:
            return varlen_attn(q, k, v, *boundaries, enable_gqa=True, **options)
        groups = q.unflatten(1, (k.shape[1], -1)).unbind(2)  # [T, K, D] each
        parts = [varlen_attn(part.contiguous(), k, v, *boundaries, **options) for part in groups]
        return torch.stack(parts, dim=2).flatten(1, 2)

    return kernel
