"""Weights in 4 bits, in blocks that share a scale: nf4 and fp4 of bitsandbytes (QLoRA, arXiv:2305.14314).

Two codes lie in a byte, the first in its high half. Blocks run along the rows and on from one row to the next. A
product computes the weight again from its codes: on a GPU inside the kernel, on a CPU a few rows at a time, which was
4 times as fast there as the whole weight first.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from models.layers.cpu_linear import Product
from models.layers.int8 import MULTIPLIED_AT_ONCE, QUANTIZED_AT_ONCE, check_scales
from models.layers.loadable import Range

FourBitKind = Literal["nf4", "fp4"]

SCALES_A_BLOCK = 256
"""Scales of the first quantization that share one of the second."""


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
        from bitsandbytes import functional

        offset = scales.mean()
        codes, state = functional.quantize_blockwise(scales - offset, blocksize=SCALES_A_BLOCK)
        return cls(codes=codes, absmax=state.absmax, table=state.code, offset=offset)

    def floats(self) -> torch.Tensor:
        """The scales, float32 [blocks]."""
        dequantize = torch.ops.bitsandbytes.dequantize_blockwise.default
        return dequantize(self.codes, self.absmax, self.table, SCALES_A_BLOCK, torch.float32).add_(self.offset)  # type: ignore[no-any-return]


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
        import bitsandbytes  # noqa: F401 - registers the operators

        quantize = torch.ops.bitsandbytes.quantize_4bit.default
        values, size = weight.reshape(-1), self.block_size
        packed = torch.empty(-(-values.numel() // 2), dtype=torch.uint8, device=weight.device)
        scales = torch.empty(-(-values.numel() // size), dtype=torch.float32, device=weight.device)
        for first in range(0, values.numel(), QUANTIZED_AT_ONCE):  # a multiple of every block size
            codes, part = quantize(values[first : first + QUANTIZED_AT_ONCE], size, self.kind, torch.uint8)
            packed[first // 2 : first // 2 + codes.numel()] = codes.view(-1)
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
        return self._floats(self.packed, self.plain_scales(), self.shape, torch.float32)

    def plain_scales(self) -> torch.Tensor:
        """The scales, float32 [blocks]."""
        return self.scales if isinstance(self.scales, torch.Tensor) else self.scales.floats()

    def above(self, other: object) -> "FourBitWeight | None":
        """Its rows with the other's below; None where that is not exact: for another form, for scales that are quantized
        among themselves, or where a block would span both."""
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
        if self.packed.device.type == "cpu":
            return partial(self._multiply_on_cpu, chunks=list(self._chunks()))
        return partial(self._multiply_on_gpu, packed=self.packed.view(-1, 1), state=self._state())

    def _multiply_on_cpu(self, x: torch.Tensor, *, chunks: "Sequence[_Chunk]") -> torch.Tensor:
        x = x.to(self.compute_dtype)
        scales = self.plain_scales()
        y = x.new_empty(x.shape[0], self.out_features)
        for chunk in chunks:
            weight = self._floats(chunk.packed, scales[chunk.blocks], chunk.shape, x.dtype)
            torch.mm(x, weight.t(), out=y[:, chunk.rows])
        return y

    def _multiply_on_gpu(self, x: torch.Tensor, *, packed: torch.Tensor, state: Any) -> torch.Tensor:
        import bitsandbytes

        return bitsandbytes.matmul_4bit(x.to(self.compute_dtype), packed, quant_state=state)  # type: ignore[attr-defined,no-any-return]

    def _chunks(self) -> "Iterator[_Chunk]":
        """Rows that are computed at a time: about `MULTIPLIED_AT_ONCE` weights, beginning at a block."""
        num_rows, width = self.shape
        whole = self.block_size // math.gcd(self.block_size, width)  # so many rows end with a block
        step = whole * max(1, MULTIPLIED_AT_ONCE // (whole * width))
        for first in range(0, num_rows, step):
            last = min(first + step, num_rows)
            yield _Chunk(
                rows=slice(first, last),
                packed=_span(self.packed, 2, (first, last), width),
                blocks=slice(first * width // self.block_size, -(-last * width // self.block_size)),
                shape=(last - first, width),
            )

    def _floats(
        self, packed: torch.Tensor, scales: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype
    ) -> torch.Tensor:
        dequantize = torch.ops.bitsandbytes.dequantize_4bit.default
        return dequantize(packed.view(-1, 1), scales, self.block_size, self.kind, shape, dtype)  # type: ignore[no-any-return]

    def _state(self) -> Any:
        from bitsandbytes.functional import QuantState, get_4bit_type

        quantized = self.scales if isinstance(self.scales, QuantizedScales) else None
        nested = (
            None
            if quantized is None
            else QuantState(
                absmax=quantized.absmax, code=quantized.table, blocksize=SCALES_A_BLOCK, dtype=torch.float32
            )
        )
        return QuantState(
            absmax=self.scales if quantized is None else quantized.codes,
            shape=torch.Size(self.shape),
            code=get_4bit_type(self.kind, device=self.packed.device),
            blocksize=self.block_size,
            quant_type=self.kind,
            dtype=self.compute_dtype,
            offset=None if quantized is None else quantized.offset,
            state2=nested,
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
class _Chunk:
    """Some rows of a weight: where they are, their codes, and where their scales are."""

    rows: slice
    packed: torch.Tensor
    blocks: slice
    shape: tuple[int, int]


def _span(values: torch.Tensor, weights_each: int, rows: Range, width: int) -> torch.Tensor:
    """What stands for whole rows of a weight that is `width` wide, where each of `values` stands for that many
    weights in a row."""
    return values[rows[0] * width // weights_each : -(-rows[1] * width // weights_each)]
