"""Rotary position embedding (Su et al. 2021): channel pairs (i, i + D/2) of a head turn by position x frequency.

Angles are float32; cosine and sine are rounded to the activation dtype before they are used, as transformers does.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.config_types import RopeConfig
from models.errors import ConfigError


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """[D/2] float32, angle per position of each channel pair.

    Raises:
        ConfigError: the kind of scaling is not one that is implemented.
    """
    if rope.kind != "default":
        raise ConfigError(
            f"rope_type {rope.kind!r} is not supported yet; only 'default' is. Use a checkpoint without rope scaling"
        )
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return 1.0 / torch.tensor(rope.theta, dtype=torch.float32) ** exponents


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosine and sine of every token of a step, each [T, 1, D/2] in the activation dtype."""

    cos: torch.Tensor
    sin: torch.Tensor


class Rotary(nn.Module):
    """Tables of cosine and sine for positions below `max_positions`, looked up once a step for all layers."""

    def __init__(self, rope: RopeConfig, head_dim: int, max_positions: int) -> None:
        super().__init__()
        self.rope, self.head_dim, self.max_positions = rope, head_dim, max_positions
        self.cos = self.sin = torch.empty(0)

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        """Fills the tables."""
        positions = torch.arange(self.max_positions, dtype=torch.float32)
        angles = torch.outer(positions, inverse_frequencies(self.rope, self.head_dim))[:, None]  # [P, 1, D/2]
        self.cos = angles.cos().to(dtype=dtype, device=device)
        self.sin = angles.sin().to(dtype=dtype, device=device)

    def forward(self, positions: torch.Tensor) -> Rotation:
        return Rotation(self.cos.index_select(0, positions), self.sin.index_select(0, positions))


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """X [T, heads, D] turned by each token's rotation; a new tensor."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.mul(first, rotation.cos, out=turned[..., :half]).addcmul_(second, rotation.sin, value=-1)
    torch.mul(second, rotation.cos, out=turned[..., half:]).addcmul_(first, rotation.sin)
    return turned
