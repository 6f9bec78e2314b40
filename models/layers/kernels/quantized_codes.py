"""bitsandbytes' codes of weights, what they stand for, and products with them."""

import functools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from models.layers.kernels import plain, samples
from models.layers.kernels.agreement import agrees, chosen
from models.layers.kernels.plain import SCALES_A_BLOCK, Codes, FourBitKind

logger = logging.getLogger(__name__)

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
