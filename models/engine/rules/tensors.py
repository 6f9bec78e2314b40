"""Several rows' tokens in one tensor, for rules that are applied to all of them at once."""

from collections.abc import Sequence
from typing import Final

import torch

BARRED: Final = -torch.inf


def flat(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """R tensors -> the row that each of their items is of [N] int64, and all items [N], one row
    after the other."""
    device, sizes = parts[0].device, [part.shape[0] for part in parts]
    owners = torch.arange(len(parts), device=device)
    counts = torch.tensor(sizes, device=device)  # their sum is told, or the device would be asked for it
    return torch.repeat_interleave(owners, counts, output_size=sum(sizes)), torch.cat(list(parts))


def bar(logits: torch.Tensor, owners: torch.Tensor, ids: torch.Tensor, is_barred: torch.Tensor) -> None:
    """Bars tokens `ids` [N] of rows `owners` [N] of logits [R, V] where `is_barred` [N], without
    asking the device where that is."""
    penalty = torch.where(is_barred, BARRED, 0.0).to(logits.dtype)
    logits.index_put_((owners, ids), penalty, accumulate=True)


def column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """R numbers as a tensor [R] of that type, on that device."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)
