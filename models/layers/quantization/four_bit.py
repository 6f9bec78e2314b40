"""Weights in 4 bits, in blocks that share a scale: nf4 and fp4 of bitsandbytes (QLoRA, arXiv:2305.14314).

Two codes lie in a byte, the first in its high half. Blocks run along the rows and on from one row to the next. A
product computes the weight again from its codes: on a GPU inside the kernel, on a CPU a few rows at a time, which was
4 times as fast there as the whole weight first. Codes are made floats in whole blocks, whatever the weight's width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from models.layers.kernels import quantized_codes
from models.layers.kernels.plain import SCALES_A_BLOCK, FourBitKind
from models.layers.kernels.products import Product
from models.layers.kernels.quantized_codes import FourBitFloats, FourBitProduct
from models.layers.quantization.int8 import MULTIPLIED_AT_ONCE, QUANTIZED_AT_ONCE, check_scales
from models.weights.loadable import Range


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuantizedScales:
    """Scales quantized in turn: table[codes] * absmax + offset. Codes uint8 [blocks], absmax float32 [blocks / 256,
    rounded up], table float32 [256], offset float32 []."""

    codes: torch.Tensor
    absmax: torch.Tensor
    table: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def of(cls, scales: torch.Tensor) -> "QuantizedScales":
        """`scales` float32 [blocks]."""
        offset, table = scales.mean(), quantized_codes.scale_table(scales.device)
        codes, absmax = quantized_codes.scale_codes(scales.device.type)(scales - offset, table)
        return cls(codes=codes, absmax=absmax, table=table, offset=offset)

    def floats(self) -> torch.Tensor:
        """The scales, float32 [blocks]."""
        return quantized_codes.scale_floats(self.codes.device.type)(self.codes, self.absmax, self.table).add_(
            self.offset
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FourBitQuantizer:
    """Makes a `FourBitWeight` of floats; `double` quantizes its scales too."""

    kind: FourBitKind
    block_size: int
    double: bool
    compute_dtype: torch.dtype

    def __call__(self, weight: torch.Tensor, name: str) -> "FourBitWeight":
        """`weight` [out, in] of any float type.

        Raises:
            CheckpointError: the weight, called `name`, has a scale that is not finite.
        """
        quantize = quantized_codes.four_bit_codes(self.kind, weight.dtype, weight.device.type)
        values, size = weight.reshape(-1), self.block_size
        packed = torch.empty(-(-values.numel() // 2), dtype=torch.uint8, device=weight.device)
        scales = torch.empty(-(-values.numel() // size), dtype=torch.float32, device=weight.device)
        for first in range(0, values.numel(), QUANTIZED_AT_ONCE):  # a multiple of every block size
            codes, part = quantize(values[first : first + QUANTIZED_AT_ONCE], size)
            packed[first // 2 : first // 2 + codes.numel()] = codes
            scales[first // size : first // size + part.numel()] = part
        check_scales(scales, name)
        return FourBitWeight(
            kind=self.kind,
            packed=packed,
            scales=QuantizedScales.of(scales) if self.double else scales,
            block_size=size,
            shape=(weight.shape[0], weight.shape[1]),
            compute_dtype=self.compute_dtype,
        )

    def num_bytes(self, shape: tuple[int, int], dtype: torch.dtype) -> int:
        """What a weight of this shape takes; `dtype` is the model's."""
        del dtype
        blocks = -(-math.prod(shape) // self.block_size)
        float_bytes = torch.float32.itemsize
        nested = blocks + (-(-blocks // SCALES_A_BLOCK) + SCALES_A_BLOCK + 1) * float_bytes
        return -(-math.prod(shape) // 2) + (nested if self.double else blocks * float_bytes)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FourBitWeight:
    """W [out, in] as `packed` uint8 [out * in / 2, rounded up] and `scales` [blocks], float32 or quantized in turn.
    Products are computed in `compute_dtype`."""

    kind: FourBitKind
    packed: torch.Tensor
    scales: torch.Tensor | QuantizedScales
    block_size: int
    shape: tuple[int, int]
    compute_dtype: torch.dtype

    @property
    def out_features(self) -> int:
        return self.shape[0]

    def floats(self) -> torch.Tensor:
        """W, float32 [out, in]."""
        scales = self.plain_scales()
        make = quantized_codes.four_bit_floats(self.kind, torch.float32, self.packed.device.type)
        blocks = make(self._whole_blocks(self.packed, scales.numel()), scales, self.block_size)
        return blocks[: math.prod(self.shape)].view(self.shape)

    def plain_scales(self) -> torch.Tensor:
        """The scales, float32 [blocks]."""
        return self.scales if isinstance(self.scales, torch.Tensor) else self.scales.floats()

    def above(self, other: object) -> "FourBitWeight | None":
        """Its rows with the other's below; None if that is not exact: for another form, for scales
        that are quantized among themselves, or where a block would span both."""
        if (
            not isinstance(other, FourBitWeight)
            or isinstance(self.scales, QuantizedScales)
            or isinstance(other.scales, QuantizedScales)
            or math.prod(self.shape) % self.block_size
            or (other.kind, other.block_size) != (self.kind, self.block_size)
        ):
            return None
        return replace(
            self,
            packed=torch.cat([self.packed, other.packed]),
            scales=torch.cat([self.scales, other.scales]),
            shape=(self.shape[0] + other.shape[0], self.shape[1]),
        )

    def part(self, rows: Range, columns: Range) -> "FourBitWeight":
        """Some rows and columns of it, as one shard holds them.

        Where the cut falls between blocks the weights stay what they are, with plain scales. Where it goes through
        blocks, the part is quantized again with the same settings.
        """
        if (rows, columns) == ((0, self.shape[0]), (0, self.shape[1])):
            return self
        width, size = self.shape[1], self.block_size
        has_whole_columns = width % size == 0 and all(column % size == 0 for column in columns)
        begins_and_ends_whole = all(row * width % size == 0 or row == self.shape[0] for row in rows)
        if has_whole_columns:
            packed = self._cut(self.packed, 2, rows, columns)
            scales = self._cut(self.plain_scales(), size, rows, columns)
        elif columns == (0, width) and begins_and_ends_whole:
            packed = _span(self.packed, 2, rows, width).clone()
            scales = _span(self.plain_scales(), size, rows, width).clone()
        else:
            return self._quantized_again(rows, columns)
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        return replace(self, packed=packed, scales=scales, shape=shape)

    def product(self) -> Product:
        """A function x [T, in] -> x Wᵀ [T, out] in `compute_dtype`."""
        device = self.packed.device.type
        fused = None if device == "cpu" else quantized_codes.four_bit_product(self.kind, self.compute_dtype, device)
        if fused is None:
            make = quantized_codes.four_bit_floats(self.kind, self.compute_dtype, device)
            return partial(self._multiply_by_pieces, pieces=list(self._pieces()), make=make)
        return partial(self._multiply_fused, fused=fused, state=self._state())

    def _multiply_by_pieces(self, x: torch.Tensor, *, pieces: "Sequence[_Piece]", make: FourBitFloats) -> torch.Tensor:
        x = x.to(self.compute_dtype)
        scales = self.plain_scales()
        y = x.new_empty(x.shape[0], self.out_features)
        for piece in pieces:
            blocks = make(piece.packed, scales[piece.blocks], self.block_size)
            weight = blocks[: math.prod(piece.shape)].view(piece.shape)
            torch.mm(x, weight.t(), out=y[:, piece.rows])
        return y

    def _multiply_fused(self, x: torch.Tensor, *, fused: FourBitProduct, state: Any) -> torch.Tensor:
        return fused(x.to(self.compute_dtype), self.packed, state)

    def _pieces(self) -> "Iterator[_Piece]":
        """Rows that are computed at a time: about `MULTIPLIED_AT_ONCE` weights, beginning at a block."""
        num_rows, width = self.shape
        whole = self.block_size // math.gcd(self.block_size, width)  # the fewest rows that end with a block
        step = whole * max(1, MULTIPLIED_AT_ONCE // (whole * width))
        for first in range(0, num_rows, step):
            last = min(first + step, num_rows)
            blocks = slice(first * width // self.block_size, -(-last * width // self.block_size))
            yield _Piece(
                rows=slice(first, last),
                packed=self._whole_blocks(_span(self.packed, 2, (first, last), width), blocks.stop - blocks.start),
                blocks=blocks,
                shape=(last - first, width),
            )

    def _whole_blocks(self, packed: torch.Tensor, num_blocks: int) -> torch.Tensor:
        """The codes with the last block filled up; the same tensor where it is full."""
        missing = num_blocks * self.block_size // 2 - packed.numel()
        return F.pad(packed, (0, missing)) if missing else packed

    def _state(self) -> Any:
        quantized = self.scales if isinstance(self.scales, QuantizedScales) else None
        return quantized_codes.four_bit_state(
            kind=self.kind,
            scales=self.scales if quantized is None else quantized.codes,  # type: ignore[arg-type]
            block_size=self.block_size,
            shape=self.shape,
            dtype=self.compute_dtype,
            offset=None if quantized is None else quantized.offset,
            nested=None if quantized is None else (quantized.absmax, quantized.table),
        )

    def _cut(self, values: torch.Tensor, weights_each: int, rows: Range, columns: Range) -> torch.Tensor:
        """What stands for these rows and columns, where each of `values` stands for that many weights of one row."""
        table = values.view(self.shape[0], self.shape[1] // weights_each)
        first, last = (column // weights_each for column in columns)
        return table[rows[0] : rows[1], first:last].clone(memory_format=torch.contiguous_format).view(-1)

    def _quantized_again(self, rows: Range, columns: Range) -> "FourBitWeight":
        quantize = FourBitQuantizer(
            kind=self.kind,
            block_size=self.block_size,
            double=isinstance(self.scales, QuantizedScales),
            compute_dtype=self.compute_dtype,
        )
        return quantize(self.floats()[rows[0] : rows[1], columns[0] : columns[1]], "a shard of a 4-bit weight")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Piece:
    """Some rows of a weight: where they are, their codes in whole blocks, and where their scales are."""

    rows: slice
    packed: torch.Tensor
    blocks: slice
    shape: tuple[int, int]


def _span(values: torch.Tensor, weights_each: int, rows: Range, width: int) -> torch.Tensor:
    """What stands for whole rows of a weight that is `width` wide, where each of `values` stands for that many
    weights in a row."""
    return values[rows[0] * width // weights_each : -(-rows[1] * width // weights_each)]
