"""Every product and kernel that comes from a library and depends on the machine: oneDNN's products, bitsandbytes' codes and
products, torch's fused attention, flash-attn.

Each is handed out only after it agreed with plain torch on this machine (see `agreement`); where it does not, what is
handed out is plain torch (`plain`), or nothing where the caller has its own plain way. It is asked when a model is loaded,
and once per process for every dtype and kind of device.
"""

import functools
import importlib
import inspect
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F

from models.layers.kernels import plain, samples
from models.layers.kernels.agreement import agrees, chosen
from models.layers.kernels.compiled import native_for
from models.layers.kernels.plain import SCALES_A_BLOCK, Codes, FourBitKind
from models.layers.native.library import PackedWeight

logger = logging.getLogger(__name__)

Product = Callable[[torch.Tensor], torch.Tensor]
CPU = torch.device("cpu")

# ---- oneDNN


PACKED_FOR_ROWS = 32
ROW_STEPS = ((64, 8), (128, 16), (256, 32), (math.inf, 64))  # up to this many rows: multiples of that
PACKABLE = (torch.float32, torch.bfloat16)


def packed_product(weight: torch.Tensor, bias: torch.Tensor | None) -> Product | None:
    """A function x [T, in] -> x Wᵀ + b [T, out] over a copy of `weight` [out, in] that our own kernel or oneDNN packed once,
    instead of at every call, or None if neither is available and right. The caller may drop `weight` afterwards.

    What oneDNN does depends on the shape, so it is compared with a plain product on the weight itself, too.
    """
    library = native_for(weight)
    if library is not None:
        return PackedWeight(library, weight, bias)
    dtype = weight.dtype
    is_native = dtype in PACKABLE and computed_dtype(dtype) == dtype
    if not is_native or weight.device.type != "cpu" or not _packs_right(dtype):
        return None
    product = _packed(weight, bias)
    sample = samples.random(2, weight.shape[1], dtype=dtype, device=CPU)
    is_right = agrees(
        _PACKED, dtype, library=product, plain=partial(F.linear, weight=weight, bias=bias), samples=[(sample,)]
    )
    return product if is_right else None


_PACKED = "oneDNN's packed product"


def _packed(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)

    def product(x: torch.Tensor) -> torch.Tensor:
        num_rows = x.shape[0]
        rows = listed_rows(num_rows)
        if rows > num_rows:
            padded = x.new_empty(rows, x.shape[1])
            padded[:num_rows] = x
            x = padded
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return y[:num_rows]

    return product


def listed_rows(num_rows: int) -> int:
    """The number of rows a product of this many is computed with: 1, 2, 4, then multiples that grow with the size.

    oneDNN compiles and keeps a kernel for every number of rows it meets, which takes about 0.7 ms and 1 MB each; a step's
    rows are never the same twice while sequences come and go.
    """
    if num_rows <= 4:
        return 1 << max(num_rows - 1, 0).bit_length()
    step = next(step for most, step in ROW_STEPS if num_rows <= most)
    return -(-num_rows // step) * step


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """What this CPU computes a model of `dtype` in: the dtype itself, or float32 where it has no instructions that
    multiply it, or torch's products of it are wrong.

    Without them a product in half precision takes about ten times as long as one in float32, which is as exact or
    more: every number in half precision is one in float32.
    """
    return dtype if dtype == torch.float32 or (dtype == torch.bfloat16 and _multiplies_bfloat16()) else torch.float32


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Torch hands products of bfloat16 to oneDNN: a layer's, and those of attention for every head."""
    found = torch.cpu.get_capabilities()
    has_x86 = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    has_instructions = has_x86 if found["architecture"] == "x86_64" else bool(found.get("bf16"))
    return (
        has_instructions
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and agrees(
            "torch's product",
            torch.bfloat16,
            library=F.linear,
            plain=lambda x, weight, bias: F.linear(x.float(), weight.float(), bias.float()),
            samples=samples.linear(torch.bfloat16, CPU),
        )
        and _batches_right(torch.bmm, heads=(3,))
        and _batches_right(torch.matmul, heads=(2, 3))
    )


def _batches_right(product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *, heads: tuple[int, ...]) -> bool:
    return agrees(
        f"torch's {product.__name__}",
        torch.bfloat16,
        library=product,
        plain=lambda left, right: left.float() @ right.float(),
        samples=samples.batched(torch.bfloat16, CPU, heads=heads),
    )


@functools.cache
def _packs_right(dtype: torch.dtype) -> bool:
    has_operators = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operators and agrees(
        _PACKED,
        dtype,
        library=lambda x, weight, bias: _packed(weight, bias)(x),
        plain=F.linear,
        samples=samples.linear(dtype, CPU),
    )


# ---- bitsandbytes

FourBitFloats = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Whole blocks: packed uint8 [blocks * block_size / 2], scales float32 [blocks], block_size -> [blocks * block_size]."""
FourBitCodes = Callable[[torch.Tensor, int], Codes]
"""Floats [n], block_size -> packed uint8 [n / 2, rounded up], scales float32 [blocks]."""
FourBitProduct = Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
"""X [T, in], packed, their `four_bit_state` -> x Wᵀ [T, out] in the dtype of x."""
Int8Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.dtype], torch.Tensor]
"""Codes int8 [T, in] and [out, in], scales [T] and [out], dtype -> [T, out]."""

LARGEST_BLOCK = 1024
"""bitsandbytes' own code for AVX-512 is inexact in larger blocks; where it knows, it compiles other code for ten seconds."""


@functools.cache
def four_bit_floats(kind: FourBitKind, dtype: torch.dtype, device_type: str) -> FourBitFloats:
    """Makes floats of 4-bit codes."""
    return chosen(
        f"bitsandbytes' floats of {kind} codes",
        dtype,
        library=partial(_bitsandbytes_floats, kind=kind, dtype=dtype),
        plain=partial(plain.four_bit_floats, kind=kind, dtype=dtype),
        samples=samples.four_bit_codes(kind, torch.device(device_type)),
    )


def _bitsandbytes_floats(
    packed: torch.Tensor, scales: torch.Tensor, block_size: int, *, kind: FourBitKind, dtype: torch.dtype
) -> torch.Tensor:
    """One row per block: rows that end inside a block are what bitsandbytes 0.50.2 gets wrong on
    AVX-512."""
    size = min(block_size, LARGEST_BLOCK)
    if size < block_size:
        scales = scales.repeat_interleave(block_size // size)
    dequantize = _bitsandbytes().dequantize_4bit.default
    return dequantize(packed.view(-1, 1), scales, size, kind, (scales.numel(), size), dtype).view(-1)  # type: ignore[no-any-return]


@functools.cache
def four_bit_codes(kind: FourBitKind, dtype: torch.dtype, device_type: str) -> FourBitCodes:
    """Makes 4-bit codes of floats of `dtype`."""

    def library(values: torch.Tensor, block_size: int) -> Codes:
        codes, scales = _bitsandbytes().quantize_4bit.default(values, block_size, kind, torch.uint8)
        return codes.view(-1), scales

    return chosen(
        f"bitsandbytes' {kind} codes",
        dtype,
        library=library,
        plain=partial(plain.four_bit_codes, kind=kind),
        samples=samples.four_bit_weights(dtype, torch.device(device_type)),
        read=partial(samples.four_bit_rounding, kind),
    )


@functools.cache
def scale_codes(device_type: str) -> Callable[[torch.Tensor, torch.Tensor], Codes]:
    """Makes codes of scales: float32 [blocks], table [256] -> uint8 [blocks], scales of scales."""
    return chosen(
        "bitsandbytes' codes of scales",
        torch.float32,
        library=lambda scales, table: _bitsandbytes().quantize_blockwise.default(scales, table, SCALES_A_BLOCK),
        plain=partial(plain.table_codes, block_size=SCALES_A_BLOCK),
        samples=samples.scales(scale_table(torch.device(device_type))),
        read=samples.scale_rounding,
    )


@functools.cache
def scale_floats(device_type: str) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Makes scales of their codes: uint8 [blocks], scales of scales, table -> float32 [blocks]."""

    def library(codes: torch.Tensor, absmax: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        dequantize = _bitsandbytes().dequantize_blockwise.default
        return dequantize(codes, absmax, table, SCALES_A_BLOCK, torch.float32)  # type: ignore[no-any-return]

    return chosen(
        "bitsandbytes' floats of scales",
        torch.float32,
        library=library,
        plain=partial(plain.table_floats, block_size=SCALES_A_BLOCK),
        samples=(
            (*plain.table_codes(scales, table, SCALES_A_BLOCK), table)
            for scales, table in samples.scales(scale_table(torch.device(device_type)))
        ),
    )


def scale_table(device: torch.device) -> torch.Tensor:
    """The 256 numbers that codes of scales stand for."""
    _bitsandbytes()
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map().to(device)  # type: ignore[no-any-return]


@functools.cache
def int8_codes(device_type: str) -> Callable[[torch.Tensor], Codes]:
    """Makes codes of a weight: float16 [out, in] -> int8 [out, in], scales float32 [out]."""

    def library(weight: torch.Tensor) -> Codes:
        codes, absmax, _ = _bitsandbytes().int8_vectorwise_quant.default(weight, 0.0)
        return codes, absmax

    return chosen(
        "bitsandbytes' int8 codes",
        torch.float16,
        library=library,
        plain=plain.int8_codes,
        samples=samples.int8_weights(torch.device(device_type)),
        read=samples.int8_rounding,
    )


@functools.cache
def int8_product(device_type: str) -> Int8Product | None:
    """The product of codes, in any float type, None if it is wrong."""

    def library(*factors: Any) -> torch.Tensor:
        codes, weight, absmax, weight_absmax, dtype = factors
        multiply = _bitsandbytes().int8_scaled_mm.default
        return multiply(codes, weight, absmax, weight_absmax, bias=None, dtype=dtype)  # type: ignore[no-any-return]

    def is_right(dtype: torch.dtype) -> bool:
        factors = samples.int8_factors(dtype, torch.device(device_type))
        return agrees("bitsandbytes' int8 product", dtype, library=library, plain=plain.int8_product, samples=factors)

    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    return library if all(is_right(dtype) for dtype in dtypes) else None


@functools.cache
def four_bit_product(kind: FourBitKind, dtype: torch.dtype, device_type: str) -> FourBitProduct | None:
    """The product with 4-bit codes, None if it is wrong."""

    def library(x: torch.Tensor, packed: torch.Tensor, state: Any) -> torch.Tensor:
        import bitsandbytes

        return bitsandbytes.matmul_4bit(x, packed.view(-1, 1), quant_state=state)  # type: ignore[attr-defined,no-any-return]

    def by_floats(x: torch.Tensor, packed: torch.Tensor, state: Any) -> torch.Tensor:
        size, shape = state.blocksize, state.shape
        padded = F.pad(packed, (0, state.absmax.numel() * size // 2 - packed.numel()))
        floats = plain.four_bit_floats(padded, state.absmax, size, kind=kind, dtype=torch.float32)
        return F.linear(x.float(), floats[: shape.numel()].view(shape)).to(dtype)

    factors = (
        (x, packed, four_bit_state(kind=kind, scales=scales, block_size=size, shape=shape, dtype=dtype))
        for x, packed, scales, size, shape in samples.four_bit_factors(kind, dtype, torch.device(device_type))
    )
    name = f"bitsandbytes' product with {kind} codes"
    return library if agrees(name, dtype, library=library, plain=by_floats, samples=factors) else None


def four_bit_state(
    *,
    kind: FourBitKind,
    scales: torch.Tensor,
    block_size: int,
    shape: tuple[int, int],
    dtype: torch.dtype,
    offset: torch.Tensor | None = None,
    nested: Codes | None = None,
) -> Any:
    """What bitsandbytes' product is told of a weight. With `offset` the scales are codes, and `nested` the scales and the
    table of these."""
    _bitsandbytes()
    from bitsandbytes.functional import QuantState

    state = QuantState(
        absmax=scales,
        shape=torch.Size(shape),
        code=plain.four_bit_table(kind, scales.device),
        blocksize=block_size,
        quant_type=kind,
        dtype=dtype,
    )
    if nested is not None:
        absmax, table = nested
        second = QuantState(absmax=absmax, code=table, blocksize=SCALES_A_BLOCK, dtype=torch.float32)
        state.offset, state.state2, state.nested = offset, second, True
    return state


@functools.cache
def _bitsandbytes() -> Any:
    """Its operators, which importing it registers. On a CPU with bfloat16 that warns of a package for products that nothing
    here uses."""
    its_logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = its_logger.level
    its_logger.setLevel(logging.ERROR)
    import bitsandbytes  # noqa: F401

    its_logger.setLevel(level)
    return torch.ops.bitsandbytes


# ---- attention

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
