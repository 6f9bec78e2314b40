"""The published formulas of quantization in plain torch: the oracle of everything quantized.

nf4: QLoRA (Dettmers et al. 2023, arXiv:2305.14314), the table of its appendix E. fp4: one bit of sign, two of exponent and
one of mantissa, as bitsandbytes lists the values of its codes. Scales quantized in turn: a dynamic tree of 8 bits (Dettmers
2015, arXiv:1511.04561; Dettmers et al. 2022, arXiv:2110.02861). int8: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339),
with outliers told apart in every row of the input by itself.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

TABLES = {
    "nf4": [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
        -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    "fp4": [x / 12 for x in (0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3)],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FourBit:
    """Codes [n], one a number, and scales [blocks]."""

    codes: torch.Tensor
    scales: torch.Tensor

    @property
    def packed(self) -> torch.Tensor:
        """Two codes a byte, the first one high."""
        pairs = F.pad(self.codes, (0, self.codes.numel() % 2)).view(-1, 2)
        return pairs[:, 0] * 16 + pairs[:, 1]


def four_bit(weight: torch.Tensor, kind: str, block_size: int = 64) -> FourBit:
    """Each number's nearest in the table, in units of its block's largest magnitude."""
    values, table = weight.reshape(-1).float(), torch.tensor(TABLES[kind])
    scales = torch.stack([block.abs().max() for block in values.split(block_size)])
    units = scales.repeat_interleave(block_size)[: values.numel()].clamp(min=1e-38)
    nearest = ((values / units)[:, None] - table).abs().argmin(dim=1)
    return FourBit(codes=nearest.to(torch.uint8), scales=scales)


def four_bit_floats(
    packed: torch.Tensor, scales: torch.Tensor, kind: str, shape: torch.Size, block_size: int
) -> torch.Tensor:
    """W = table[code] * scale of its block."""
    codes = torch.stack([packed.view(-1) // 16, packed.view(-1) % 16], dim=1).view(-1)[: shape.numel()]
    units = scales.repeat_interleave(block_size)[: shape.numel()]
    return (torch.tensor(TABLES[kind])[codes.long()] * units).view(shape)


def dynamic_table() -> torch.Tensor:
    """The 256 numbers that codes of scales stand for: 0, 1, and in every decade from 1e-7 to 1 the middles of 1, 2, 4, ... 64
    equal parts of its upper 90%, with both signs."""
    values = [0.0, 1.0]
    for exponent in range(7):
        bounds = [0.1 + 0.9 * part / 2**exponent for part in range(2**exponent + 1)]
        middles = [10.0 ** (exponent - 6) * (low + high) / 2 for low, high in pairwise(bounds)]
        values += [sign * middle for middle in middles for sign in (-1, 1)]
    return torch.tensor(sorted(values))


def twice(scales: torch.Tensor) -> torch.Tensor:
    """What scales are once they have been quantized in turn: blocks of 256 around the mean of all."""
    offset, table = scales.mean(), dynamic_table()
    restored = []
    for block in (scales - offset).split(256):
        unit = block.abs().max().clamp(min=1e-38)
        restored.append(table[((block / unit)[:, None] - table).abs().argmin(dim=1)] * unit)
    return torch.cat(restored) + offset


def four_bit_weight(weight: torch.Tensor, kind: str, *, double: bool = False, block_size: int = 64) -> torch.Tensor:
    """What a weight is once it has been held in 4 bits."""
    held = four_bit(weight, kind, block_size)
    scales = twice(held.scales) if double else held.scales
    return four_bit_floats(held.packed, scales, kind, weight.shape, block_size)


@dataclass(frozen=True, kw_only=True)
class Int8:
    """W[o, i] = codes[o, i] * absmax[o] / 127."""

    codes: torch.Tensor
    absmax: torch.Tensor

    @property
    def floats(self) -> torch.Tensor:
        return self.codes.float() * (self.absmax / 127)[:, None]


def int8(weight: torch.Tensor) -> Int8:
    """Each row in 127ths of its largest magnitude; by way of float16, as bitsandbytes takes weights and inputs."""
    half = weight.half().float()
    absmax = half.abs().amax(dim=1)
    codes = torch.round(half * (127 / absmax.clamp(min=1e-38))[:, None])
    return Int8(codes=codes.to(torch.int8), absmax=absmax)


def int8_product(x: torch.Tensor, weight: Int8, threshold: float = 6.0) -> torch.Tensor:
    """X Wᵀ: a row's inputs in 127ths of their largest magnitude, but for those of at least `threshold` (0: none), which
    are multiplied as they are."""
    half = x.half().float()
    is_outlier = (half.abs() >= threshold) & (threshold > 0)
    inputs = int8(half.masked_fill(is_outlier, 0))
    regular = (
        inputs.codes.double()
        @ weight.codes.double().T
        * (inputs.absmax.double()[:, None] * weight.absmax.double() / 127**2)
    )
    return (regular + (x.double() * is_outlier) @ weight.floats.double().T).float()
