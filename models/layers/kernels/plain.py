"""What the kernels of libraries compute, as published, in plain torch: exact on every machine, and slower.

4 bits: nf4 of QLoRA (Dettmers et al. 2023, arXiv:2305.14314, appendix E) and bitsandbytes' fp4, one scale a block of
weights. 8 bits: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339), one scale a row. Scales quantized in turn: blocks
over a table of 256 numbers (Dettmers et al. 2022, arXiv:2110.02861).
"""

import functools
from typing import Literal

import torch
import torch.nn.functional as F

FourBitKind = Literal["nf4", "fp4"]
Codes = tuple[torch.Tensor, torch.Tensor]
"""Codes, and the scale of each block or row."""

LEVELS = 127
SCALES_A_BLOCK = 256
"""Scales of the first quantization that share one of the second."""
SMALLEST = 1e-38  # stands for the scale of a block of zeros

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
FP4_HALF = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)  # of 12; the other half of the codes has the opposite signs


@functools.cache
def four_bit_table(kind: FourBitKind, device: torch.device) -> torch.Tensor:
    """The numbers that the codes 0 to 15 stand for, float32 [16]."""
    values = NF4 if kind == "nf4" else (*FP4_HALF, *(-value for value in FP4_HALF))
    table = torch.tensor(values, dtype=torch.float32)
    return (table / table.abs().max()).to(device)


def four_bit_floats(
    packed: torch.Tensor, scales: torch.Tensor, block_size: int, *, kind: FourBitKind, dtype: torch.dtype
) -> torch.Tensor:
    """Whole blocks: packed uint8 [blocks * block_size / 2], scales float32 [blocks] -> `dtype` [blocks * block_size]."""
    values = F.embedding(packed.view(-1).int(), _pairs(kind, packed.device))  # [bytes, 2]
    return values.view(-1, block_size).mul_(scales[:, None]).to(dtype).view(-1)


@functools.cache
def _pairs(kind: FourBitKind, device: torch.device) -> torch.Tensor:
    """What every byte stands for [256, 2]; its high half comes first."""
    table = four_bit_table(kind, device)
    return torch.stack([table.repeat_interleave(16), table.repeat(16)], dim=1)


def four_bit_codes(values: torch.Tensor, block_size: int, *, kind: FourBitKind) -> Codes:
    """Floats [n] -> packed uint8 [n / 2, rounded up] and scales float32 [blocks, the last of which may be short]."""
    blocks = _blocks(values, block_size)
    absmax = blocks.abs().amax(dim=1)
    scaled = blocks * (1 / absmax.clamp(min=SMALLEST))[:, None]
    codes = _nearest(scaled, four_bit_table(kind, values.device)).view(-1)[: values.numel() + values.numel() % 2]
    return (codes[::2] << 4) | codes[1::2], absmax


def table_codes(values: torch.Tensor, table: torch.Tensor, block_size: int) -> Codes:
    """Floats [n] -> uint8 [n], places in `table` [256], and scales float32 [blocks]."""
    blocks = _blocks(values, block_size)
    absmax = blocks.abs().amax(dim=1)
    scaled = blocks / absmax.clamp(min=SMALLEST)[:, None]
    return _nearest(scaled, table).view(-1)[: values.numel()], absmax


def table_floats(codes: torch.Tensor, absmax: torch.Tensor, table: torch.Tensor, block_size: int) -> torch.Tensor:
    """What they stand for, float32 [n]."""
    scales = absmax.repeat_interleave(block_size)[: codes.numel()]
    return table[codes.int()] * scales


def int8_codes(weight: torch.Tensor) -> Codes:
    """Floats [out, in] -> codes int8 [out, in] and the largest magnitude of each row, float32 [out]."""
    absmax = weight.abs().amax(dim=1).float()
    return torch.round(weight * (LEVELS / absmax.clamp(min=SMALLEST))[:, None]).to(torch.int8), absmax


def int8_product(
    codes: torch.Tensor, weight: torch.Tensor, absmax: torch.Tensor, weight_absmax: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Codes int8 [T, in] and [out, in], scales [T] and [out] -> their product in `dtype` [T, out]."""
    units = absmax[:, None] * (weight_absmax / LEVELS**2)
    return ((codes.float() @ weight.float().t()) * units).to(dtype)


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Q [b, Q, Tq, D] over k and v [b, K, Tk, D] -> [b, Q, Tq, D]. `mask` is added to the scores [b, 1, Tq, Tk]; None:
    a query sees the keys up to its own place."""
    num_queries, num_keys = q.shape[2], k.shape[2]
    if mask is None:
        mask = torch.full((num_queries, num_keys), -torch.inf, device=q.device).triu_(1)
    grouped = q.unflatten(1, (k.shape[1], -1)).flatten(2, 3).float()  # [b, K, G * Tq, D]
    scores = (grouped @ k.float().transpose(2, 3) * scale).unflatten(2, (-1, num_queries))  # [b, K, G, Tq, Tk]
    weights = torch.softmax(scores + mask.float().unsqueeze(-3), dim=-1).flatten(2, 3)
    heads: torch.Tensor = (weights @ v.float()).unflatten(2, (-1, num_queries)).flatten(1, 2)
    return heads.to(q.dtype)


def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_queries: torch.Tensor,
    cu_keys: torch.Tensor,
    max_queries: int,
    max_keys: int,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Packed sequences, q [Tq, Q, D], k and v [Tk, K, D] -> [Tq, Q, D]. The last query of each is aligned with its last
    key, and sees `window_size[0]` keys before its own, or all (-1)."""
    del max_queries, max_keys
    sizes = [boundaries.diff().tolist() for boundaries in (cu_queries, cu_keys, cu_keys)]
    found = []
    for own_q, own_k, own_v in zip(*(x.split(size) for x, size in zip((q, k, v), sizes, strict=True)), strict=True):
        position = torch.arange(own_k.shape[0] - own_q.shape[0], own_k.shape[0], device=q.device)[:, None]
        place = torch.arange(own_k.shape[0], device=q.device)
        hidden = place > position
        if window_size[0] >= 0:
            hidden |= place < position - window_size[0]
        mask = torch.zeros(hidden.shape, device=q.device).masked_fill_(hidden, -torch.inf)[None, None]
        padded_q, padded_k, padded_v = (x.transpose(0, 1)[None] for x in (own_q, own_k, own_v))  # [1, heads, T, D]
        found.append(attention(padded_q, padded_k, padded_v, mask, scale)[0].transpose(0, 1))
    return torch.cat(found)


def _blocks(values: torch.Tensor, block_size: int) -> torch.Tensor:
    """Float32 [blocks, block_size], the last one filled up with zeros."""
    flat = values.reshape(-1).float()
    return F.pad(flat, (0, -flat.numel() % block_size)).view(-1, block_size)


def _nearest(scaled: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The place in the table of the number that is nearest, uint8."""
    ordered, order = table.sort(stable=True)
    return order.to(torch.uint8)[torch.bucketize(scaled, (ordered[:-1] + ordered[1:]) / 2)]
