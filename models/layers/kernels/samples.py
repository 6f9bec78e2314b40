"""What libraries' functions are tried with before they are used: samples that are small and odd.

1, 3 and 33 rows; widths and outputs that are not multiples of 32, 64 or a block. And how results
that are codes are compared: by how far they are from what they stand for, because two codes may be
as near.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from models.config.quantization import BLOCK_SIZES, DEFAULT_BLOCK_SIZE
from models.layers.kernels import plain
from models.layers.kernels.agreement import Sample
from models.layers.kernels.plain import SCALES_A_BLOCK, Codes, FourBitKind

ROWS = (1, 3, 33)
SIZES = ((33, 48), (70, 100), (5, 161))
"""Outputs and widths of weights."""
NUM_KEYS = (40, 3, 300)
"""Of sequences with as many queries as `ROWS`."""


def random(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def linear(dtype: torch.dtype, device: torch.device) -> Iterator[Sample]:
    """x, weight and bias."""
    for out_features, width in SIZES:
        weight, bias = (
            random(*shape, dtype=dtype, device=device) for shape in ((out_features, width), (out_features,))
        )
        for num_rows in ROWS:
            yield random(num_rows, width, dtype=dtype, device=device, seed=1), weight, bias


def batched(dtype: torch.dtype, device: torch.device, *, heads: tuple[int, ...]) -> Iterator[Sample]:
    """The two products of attention for every one of `heads`: queries with transposed keys, and weights with values."""
    for num_keys, (_, width) in zip(NUM_KEYS, SIZES, strict=True):
        k, v = (random(*heads, num_keys, width, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
        for num_rows in ROWS:
            yield random(*heads, num_rows, width, dtype=dtype, device=device), k.transpose(-1, -2)
            yield random(*heads, num_rows, num_keys, dtype=dtype, device=device, seed=3), v


def four_bit_codes(kind: FourBitKind, device: torch.device) -> Iterator[Sample]:
    """Whole blocks of codes, their scales and the size of the blocks."""
    for size in BLOCK_SIZES:
        for blocks in ROWS:
            values = random(blocks * size, dtype=torch.float32, device=device)
            yield *plain.four_bit_codes(values, size, kind=kind), size


def four_bit_weights(dtype: torch.dtype, device: torch.device) -> Iterator[Sample]:
    """Values, the last block of which is short, and the size of the blocks."""
    for size in BLOCK_SIZES:
        for num_rows, width in zip(ROWS, (48, 70, 161), strict=True):
            yield random(num_rows * width, dtype=dtype, device=device), size


def four_bit_rounding(kind: FourBitKind, codes: Codes, values: torch.Tensor, block_size: int) -> torch.Tensor:
    """How far each value is from what its code stands for, which two codes may be alike; every scale behind."""
    packed, scales = codes
    padded = F.pad(packed, (0, scales.numel() * block_size // 2 - packed.numel()))
    floats = plain.four_bit_floats(padded, scales, block_size, kind=kind, dtype=torch.float32)
    return torch.cat([(floats[: values.numel()] - values).abs(), scales])


def four_bit_factors(kind: FourBitKind, dtype: torch.dtype, device: torch.device) -> Iterator[Sample]:
    """Inputs, and a weight as packed codes, scales, the size of its blocks and its shape."""
    size = DEFAULT_BLOCK_SIZE
    for shape in SIZES:
        weight = plain.four_bit_codes(random(*shape, dtype=dtype, device=device), size, kind=kind)
        for num_rows in ROWS:
            yield random(num_rows, shape[1], dtype=dtype, device=device, seed=1), *weight, size, shape


def scales(table: torch.Tensor) -> Iterator[Sample]:
    """Scales and the table that their codes are places in."""
    for blocks in (1, 3, 33, SCALES_A_BLOCK + 1):
        yield random(blocks, dtype=torch.float32, device=table.device), table


def scale_rounding(codes: Codes, scales: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """How far each scale is from what its code stands for; the scales of scales behind."""
    return torch.cat([(plain.table_floats(*codes, table, SCALES_A_BLOCK) - scales).abs(), codes[1]])


def int8_weights(device: torch.device) -> Iterator[Sample]:
    """A weight."""
    for size in SIZES:
        yield (random(*size, dtype=torch.float16, device=device),)


def int8_rounding(codes: Codes, weight: torch.Tensor) -> torch.Tensor:
    """How far each weight is from what its code stands for; the scales behind."""
    floats = codes[0] * (codes[1] / plain.LEVELS)[:, None]
    return torch.cat([(floats - weight).abs().view(-1), codes[1]])


def int8_factors(dtype: torch.dtype, device: torch.device) -> Iterator[Sample]:
    """Codes of inputs and of a weight, the scales of both, and the dtype of their product."""
    for out_features, width in SIZES:
        weight, weight_absmax = plain.int8_codes(random(out_features, width, dtype=torch.float16, device=device))
        for num_rows in ROWS:
            codes, absmax = plain.int8_codes(random(num_rows, width, dtype=torch.float16, device=device, seed=1))
            yield codes, weight, absmax, weight_absmax, dtype


def padded(dtype: torch.dtype, device: torch.device) -> Iterator[Sample]:
    """Queries, keys, values, mask and scale of two sequences, with as many key as query heads and with fewer: causal, after 37
    keys of a cache, and all seeing all keys except for padding."""
    for num_queries in ROWS:
        for num_kv_heads in (4, 2):
            q = random(2, 4, num_queries, 24, dtype=dtype, device=device)
            for num_cached, mask in (
                (0, None),
                (37, _later(num_queries, 37).expand(2, -1, -1, -1)),
                (0, _padding(num_queries)),
            ):
                size = (2, num_kv_heads, num_cached + num_queries, 24)
                k, v = (random(*size, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
                yield q, k, v, None if mask is None else mask.to(device, dtype), 0.2


def _later(num_queries: int, num_cached: int) -> torch.Tensor:
    """-inf on keys after a query's own [1, 1, queries, cached + queries]."""
    return torch.full((1, 1, num_queries, num_cached + num_queries), -torch.inf).triu_(num_cached + 1)


def _padding(num_keys: int) -> torch.Tensor:
    """-inf on the last keys of the second of two sequences [2, 1, 1, keys]."""
    mask = torch.zeros(2, 1, 1, num_keys)
    mask[1, ..., 2 * num_keys // 3 + 1 :] = -torch.inf
    return mask


def varlen(dtype: torch.dtype, device: torch.device, *, slides: bool) -> Iterator[Sample]:
    """Packed sequences that continue a cache, or do not, with as many key as query heads and with fewer; with `slides` in
    windows, too."""
    cu_queries, cu_keys = (torch.tensor([0, *counts]).cumsum(0).to(device, torch.int32) for counts in (ROWS, NUM_KEYS))
    for num_kv_heads in (4, 2):
        q = random(sum(ROWS), 4, 24, dtype=dtype, device=device)
        k, v = (random(sum(NUM_KEYS), num_kv_heads, 24, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
        for window_size in [(-1, 0), (7, 0)] if slides else [(-1, 0)]:
            yield q, k, v, cu_queries, cu_keys, max(ROWS), max(NUM_KEYS), 0.2, window_size
