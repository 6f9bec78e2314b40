"""Weights in 8 bits, one scale a row, multiplied as LLM.int8() does (Dettmers et al. 2022, arXiv:2208.07339).

A product quantizes its input too, row by row, except for entries of at least `threshold`, which
are multiplied as they are. bitsandbytes takes a whole column out where one row of the batch has
such an entry; here every row decides for itself, so that a row's output does not depend on its
batch-mates. For a batch of one row the two are the same.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch

from models.errors import CheckpointError
from models.layers.kernels import quantized_codes
from models.layers.kernels.plain import LEVELS
from models.layers.kernels.products import Product
from models.layers.kernels.quantized_codes import Int8Product

QUANTIZED_AT_ONCE = 1 << 18
"""Weights; what quantizing needs besides is a few times as large."""
MULTIPLIED_AT_ONCE = 1 << 19
"""Weights that a CPU makes floats of at a time: they stay in its cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Quantizer:
    """Makes an `Int8Weight` of floats; see there for `threshold`."""

    threshold: float

    def __call__(self, weight: torch.Tensor, name: str) -> "Int8Weight":
        """`weight` [out, in] of any float type, by way of float16 as bitsandbytes does.

        Raises:
            CheckpointError: the weight, called `name`, has no finite scale.
        """
        quantize = quantized_codes.int8_codes(weight.device.type)
        codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        absmax = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
        step = max(1, QUANTIZED_AT_ONCE // weight.shape[1])
        for first in range(0, weight.shape[0], step):
            rows = slice(first, first + step)
            codes[rows], absmax[rows] = quantize(weight[rows].half())
        check_scales(absmax, name)
        return Int8Weight(codes=codes, absmax=absmax, threshold=self.threshold)

    def num_bytes(self, shape: tuple[int, int], dtype: torch.dtype) -> int:
        """What a weight of this shape takes; `dtype` is the model's."""
        del dtype
        return math.prod(shape) + shape[0] * torch.float32.itemsize


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Int8Weight:
    """W[o, i] = codes[o, i] * absmax[o] / 127: codes int8 [out, in], absmax float32 [out]."""

    codes: torch.Tensor
    absmax: torch.Tensor
    threshold: float

    @property
    def out_features(self) -> int:
        return self.codes.shape[0]

    def above(self, other: object) -> "Int8Weight | None":
        """Its rows with the other's below, which is exact; None for another form."""
        if not isinstance(other, Int8Weight):
            return None
        codes, absmax = torch.cat([self.codes, other.codes]), torch.cat([self.absmax, other.absmax])
        return Int8Weight(codes=codes, absmax=absmax, threshold=self.threshold)

    def product(self) -> Product:
        """A function x [T, in] -> x Wᵀ [T, out] in the dtype of x, or in float32 on a CPU."""
        device = self.codes.device.type
        fused = None if device == "cpu" else quantized_codes.int8_product(device)
        return self._multiply_by_pieces if fused is None else partial(self._multiply_fused, fused=fused)

    def _multiply_by_pieces(self, x: torch.Tensor) -> torch.Tensor:
        """Codes are whole numbers, and exact as floats; entries over the threshold stay beside them in the same units."""
        codes, absmax, is_outlier = self._quantized_input(x)
        units = absmax[:, None] / LEVELS  # [T, 1]
        mixed = torch.where(is_outlier, x.float() / units, codes) if is_outlier is not None else codes  # [T, in]
        y = mixed.new_empty(x.shape[0], self.out_features)
        step = max(1, MULTIPLIED_AT_ONCE // self.codes.shape[1])
        for first in range(0, self.out_features, step):
            rows = slice(first, first + step)
            torch.mm(mixed, self.codes[rows].float().t(), out=y[:, rows])
        return y.mul_(units).mul_(self.absmax / LEVELS)

    def _multiply_fused(self, x: torch.Tensor, *, fused: Int8Product) -> torch.Tensor:
        codes, absmax, is_outlier = self._quantized_input(x)
        y = fused(codes.to(torch.int8), self.codes, absmax, self.absmax, x.dtype)
        if is_outlier is None:
            return y
        columns = is_outlier.any(dim=0).nonzero().view(-1)
        outliers = (x * is_outlier)[:, columns]  # [T, C]
        weight = self.codes[:, columns] * (self.absmax / LEVELS)[:, None]  # [out, C]
        return y.addmm_(outliers, weight.t().to(x.dtype))

    def _quantized_input(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Codes [T, in] as floats, absmax [T], and which entries are outliers [T, in], whose codes are 0."""
        half = x.to(torch.float16)
        is_outlier = half.abs() >= self.threshold if self.threshold > 0 else None
        if is_outlier is not None:
            half = half.masked_fill(is_outlier, 0)
        absmax = half.abs().amax(dim=1).float()
        absmax = torch.where(absmax == 0, 1.0, absmax)
        return torch.round(half * (LEVELS / absmax)[:, None]), absmax, is_outlier


def check_scales(scales: torch.Tensor, name: str) -> None:
    """Raises CheckpointError unless all scales of the weight called `name` are finite."""
    if not torch.isfinite(scales).all():
        raise CheckpointError(
            f"{name} holds numbers that are NaN, infinite or too large to be quantized; leave it unquantized (skipped_modules)"
        )
