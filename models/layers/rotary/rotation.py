"""Rotary position embedding (Su et al. 2021): pairs of a head's channels turn by position x frequency.

Angles are float32; cosine and sine are rounded to the activation dtype before they are used, as transformers does.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.config.types import RopeConfig
from models.layers.rotary.kinds import dynamic_frequencies, frequencies, rotated_channels


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosine and sine of every token of a step, each [T, 1, d/2] in the activation dtype, for the first d channels of a
    head. The pairs are (2i, 2i + 1) if `is_interleaved`, else (i, i + d/2)."""

    cos: torch.Tensor
    sin: torch.Tensor
    is_interleaved: bool = False


class Rotary(nn.Module):
    """Cosine and sine for positions below `max_positions`, once per step for all layers.

    Kinds with fixed frequencies look them up in a table; longrope has two, of which a sequence's regime picks one;
    dynamic computes them from the length that scales them.
    """

    def __init__(self, rope: RopeConfig, head_dim: int, max_positions: int, *, is_interleaved: bool = False) -> None:
        super().__init__()
        self.rope, self.head_dim, self.max_positions = rope, head_dim, max_positions
        self.is_interleaved = is_interleaved
        self.cos = self.sin = torch.empty(0)

    @property
    def loading_bytes(self) -> int:
        """What `materialize` takes at most while it fills the tables: angles, cosines and sines in single precision, and these joined."""
        num_tables = {"longrope": 2, "dynamic": 0}.get(self.rope.kind, 1)
        return 5 * 4 * num_tables * self.max_positions * (rotated_channels(self.rope, self.head_dim) // 2)

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        """Fills the tables [regimes * P, 1, d/2]."""
        positions = torch.arange(self.max_positions, dtype=torch.float32)
        tables = [frequencies(self.rope, self.head_dim, is_long=is_long) for is_long in (False, True)]
        if self.rope.kind != "longrope":
            tables = tables[:1]
        if self.rope.kind == "dynamic":
            tables = []
        angles = [torch.outer(positions, table.inverse)[:, None] for table in tables]
        empty = torch.empty(0, dtype=dtype, device=device)
        cos = [angle.cos() * table.scale for angle, table in zip(angles, tables, strict=True)]
        sin = [angle.sin() * table.scale for angle, table in zip(angles, tables, strict=True)]
        self.cos = torch.cat(cos).to(dtype=dtype, device=device) if tables else empty
        self.sin = torch.cat(sin).to(dtype=dtype, device=device) if tables else empty

    def forward(self, positions: torch.Tensor, regimes: torch.Tensor | None = None) -> Rotation:
        """The rotation of tokens at `positions` [T]; `regimes` [T] of their sequences, None if the
        kind has but one."""
        if self.rope.kind == "dynamic":
            lengths = positions + 1 if regimes is None else torch.maximum(positions + 1, regimes)
            angles = positions[:, None, None] * dynamic_frequencies(self.rope, self.head_dim, lengths)[:, None]
            return Rotation(angles.cos().to(self.cos.dtype), angles.sin().to(self.cos.dtype), self.is_interleaved)
        places = positions if regimes is None else positions + regimes * self.max_positions
        return Rotation(self.cos.index_select(0, places), self.sin.index_select(0, places), self.is_interleaved)


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """X [T, heads, D] with its first d channels turned by each token's rotation; a new tensor."""
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    first, second = _pairs(x, rotation)
    first_out, second_out = _pairs(turned, rotation)
    torch.mul(first, rotation.cos, out=first_out).addcmul_(second, rotation.sin, value=-1)
    torch.mul(second, rotation.cos, out=second_out).addcmul_(first, rotation.sin)
    num_turned = 2 * rotation.cos.shape[-1]
    if num_turned < x.shape[-1]:
        turned[..., num_turned:] = x[..., num_turned:]
    return turned


def _pairs(x: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
    """The first and the second channels of all pairs, as views [T, heads, d/2]."""
    half = rotation.cos.shape[-1]
    if rotation.is_interleaved:
        return x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
    return x[..., :half], x[..., half : 2 * half]
