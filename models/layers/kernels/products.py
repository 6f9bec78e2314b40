"""Products with weights in floats: our own compiled ones, or oneDNN's, and which dtype this CPU multiplies."""

import functools
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from models.layers.kernels import samples
from models.layers.kernels.agreement import agrees
from models.layers.kernels.compiled import native_for
from models.layers.native.library import PackedWeight

Product = Callable[[torch.Tensor], torch.Tensor]
CPU = torch.device("cpu")

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
