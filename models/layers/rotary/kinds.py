"""How fast each channel pair of a head turns, for every published kind of rotary embedding.

`frequencies(rope, head_dim, regime)` is the whole of it: the kinds that depend on how long a sequence is have several
tables, one a regime (see `models.config.types.RopeRegimes`).
"""

import math
from dataclasses import dataclass

import torch

from models.config.types import RopeConfig

BETA_FAST, BETA_SLOW = 32.0, 1.0  # yarn's defaults: turns within the original context


@dataclass(frozen=True, slots=True)
class Frequencies:
    """`inverse` [d/2] float32, the angle per position of each rotated channel pair; cosine and sine are multiplied by
    `scale`."""

    inverse: torch.Tensor
    scale: float = 1.0


def rotated_channels(rope: RopeConfig, head_dim: int) -> int:
    """How many leading channels of a head turn."""
    return int(head_dim * rope.partial_rotary_factor)


def frequencies(rope: RopeConfig, head_dim: int, *, is_long: bool = False) -> Frequencies:
    """The frequencies of a kind that has a fixed set of them; `is_long` picks longrope's second one."""
    base = _geometric(rope.theta, rotated_channels(rope, head_dim))
    match rope.kind:
        case "linear":
            return Frequencies(base / rope.parameters["factor"])
        case "llama3":
            return Frequencies(_llama3(rope, base))
        case "yarn":
            return Frequencies(_yarn(rope, base), _yarn_scale(rope))
        case "longrope":
            return Frequencies(
                _longrope(rope, base, "long_factor" if is_long else "short_factor"), _longrope_scale(rope)
            )
        case _:
            return Frequencies(base)


def dynamic_frequencies(rope: RopeConfig, head_dim: int, lengths: torch.Tensor) -> torch.Tensor:
    """[T, d/2] float32, NTK-scaled for a context of `lengths` [T] tokens (at least the model's own)."""
    channels, factor = rotated_channels(rope, head_dim), rope.parameters["factor"]
    ratio = lengths.clamp(min=rope.max_positions).double() / rope.max_positions
    base = rope.theta * (factor * ratio - (factor - 1.0)) ** (channels / (channels - 2))
    inverse: torch.Tensor = 1.0 / base[:, None] ** _exponents(channels, lengths.device).double()
    return inverse.float()


def _exponents(channels: int, device: torch.device | None = None) -> torch.Tensor:
    return torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels


def _geometric(theta: float, channels: int) -> torch.Tensor:
    return 1.0 / torch.tensor(theta, dtype=torch.float32) ** _exponents(channels)


def _llama3(rope: RopeConfig, base: torch.Tensor) -> torch.Tensor:
    """Slow pairs are slowed by the factor, fast ones kept, those between interpolated by their turns in the original
    context."""
    low, high = rope.parameters["low_freq_factor"], rope.parameters["high_freq_factor"]
    turns = rope.parameters["original_max_position_embeddings"] * base / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    slowed: torch.Tensor = base / rope.parameters["factor"]
    return torch.lerp(slowed, base, kept)


def _yarn(rope: RopeConfig, base: torch.Tensor) -> torch.Tensor:
    """As llama3, but interpolated by the number of the channel pair (Peng et al. 2023)."""
    channels = 2 * base.shape[0]
    original = rope.parameters["original_max_position_embeddings"]

    def pair_with(turns: float) -> float:
        return channels * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first = pair_with(rope.parameters.get("beta_fast") or BETA_FAST)
    last = pair_with(rope.parameters.get("beta_slow") or BETA_SLOW)
    if rope.parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, channels - 1)
    if first == last:
        last += 0.001
    share = ((torch.arange(base.shape[0], dtype=torch.float32) - first) / (last - first)).clamp(0.0, 1.0)
    slowed: torch.Tensor = base / rope.parameters["factor"]
    return torch.lerp(base, slowed, share)


def _yarn_scale(rope: RopeConfig) -> float:
    given, factor = rope.parameters.get("attention_factor"), rope.parameters["factor"]
    if given is not None:
        return float(given)
    over, under = rope.parameters.get("mscale"), rope.parameters.get("mscale_all_dim")
    if over and under:
        return _magnitude(factor, over) / _magnitude(factor, under)
    return _magnitude(factor, 1.0)


def _magnitude(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(rope: RopeConfig, base: torch.Tensor, table: str) -> torch.Tensor:
    return base / torch.tensor(rope.parameters[table], dtype=torch.float32)


def _longrope_scale(rope: RopeConfig) -> float:
    """The same for both tables."""
    given, original = rope.parameters.get("attention_factor"), rope.parameters["original_max_position_embeddings"]
    if given is not None:
        return float(given)
    factor = rope.parameters.get("factor") or rope.max_positions / original
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
