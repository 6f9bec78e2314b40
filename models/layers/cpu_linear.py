"""Matrix products with a weight that oneDNN packed once, instead of at every call.

The two operators are private to torch, so a weight is used this way only after its product agreed with `F.linear` on
this machine.
"""

import functools
import logging
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

logger = logging.getLogger(__name__)

Product = Callable[[torch.Tensor], torch.Tensor]

PACKED_FOR_ROWS = 32
ROW_STEPS = ((64, 8), (128, 16), (256, 32), (math.inf, 64))  # up to this many rows: multiples of that
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def pack(weight: torch.Tensor, bias: torch.Tensor | None) -> Product | None:
    """A function x [T, in] -> x Wᵀ + b [T, out] over a packed copy of `weight` [out, in], or None where packing is
    not available.

    The caller may drop `weight` afterwards.
    """
    is_native = weight.dtype in TOLERANCE and computed_dtype(weight.dtype) == weight.dtype
    if not is_native or weight.device.type != "cpu" or not _has_operators():
        return None
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

    if not _agrees(product, weight, bias):
        logger.warning("packed product of a %s weight disagrees with F.linear; using F.linear", tuple(weight.shape))
        return None
    return product


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """What this CPU computes a model of `dtype` in: the dtype itself, or float32 where it has no instructions that
    multiply it.

    Without them a product in half precision takes about ten times as long as one in float32, which is as exact or
    more: every number in half precision is one in float32.
    """
    return dtype if dtype == torch.float32 or (dtype == torch.bfloat16 and _multiplies_bfloat16()) else torch.float32


def listed_rows(num_rows: int) -> int:
    """The number of rows a product of this many is computed with: 1, 2, 4, then multiples that grow with the size.

    oneDNN compiles and keeps a kernel for every number of rows it meets, which takes about 0.7 ms and 1 MB each; a step's
    rows are never the same twice while sequences come and go.
    """
    if num_rows <= 4:
        return 1 << max(num_rows - 1, 0).bit_length()
    step = next(step for most, step in ROW_STEPS if num_rows <= most)
    return -(-num_rows // step) * step


@functools.cache
def _multiplies_bfloat16() -> bool:
    found = torch.cpu.get_capabilities()
    has_x86 = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    has_instructions = has_x86 if found["architecture"] == "x86_64" else bool(found.get("bf16"))
    return has_instructions and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_operators() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _agrees(product: Product, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, weight.shape[1], generator=generator).to(weight.dtype)
    expected = F.linear(x, weight, bias).float()
    scale = expected.abs().max().clamp(min=1e-6)
    return bool((product(x).float() - expected).abs().max() <= TOLERANCE[weight.dtype] * scale)
