"""Tensor parallel ranks as threads of one process: the collectives exchange tensors through shared lists."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from models.parallel.tensor_parallel import TensorParallel
from models.weights.weights import Checkpoint, load_weights

T = TypeVar("T")
PATIENCE_S = 60
CPU = torch.device("cpu")


class Exchange:
    """Where `size` ranks put a tensor each and take all of them."""

    def __init__(self, size: int) -> None:
        self._tensors: list[torch.Tensor] = [torch.empty(0)] * size
        self._barrier = threading.Barrier(size)
        self.size = size

    def swap(self, rank: int, x: torch.Tensor) -> list[torch.Tensor]:
        self._tensors[rank] = x.clone()
        self._barrier.wait(PATIENCE_S)
        found = list(self._tensors)
        self._barrier.wait(PATIENCE_S)
        return found


@dataclass(frozen=True, kw_only=True)
class ThreadRank(TensorParallel):
    """A rank that lives in a thread. Like the real one, it does nothing when it is the only one."""

    exchange: Exchange = field(default_factory=lambda: Exchange(1))

    def least(self, value: int) -> int:
        return value

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.size == 1 else x.copy_(torch.stack(self.exchange.swap(self.rank, x)).sum(0))

    def all_gather(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.size == 1 else torch.cat(self.exchange.swap(self.rank, x), dim=-1)


def on_ranks(size: int, run: Callable[[TensorParallel], T]) -> list[T]:
    """Runs the same code on every rank at once; the results in rank order."""
    exchange = Exchange(size)
    ranks = [ThreadRank(rank=rank, size=size, exchange=exchange) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, ranks))


def write_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Checkpoint:
    """A checkpoint of these tensors."""
    save_file(dict(tensors), folder / "model.safetensors")
    return Checkpoint.open(folder)


def loaded(layer: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The layer, filled with its part of the checkpoint."""
    load_weights(layer, checkpoint, dtype=dtype, device=CPU)
    return layer
