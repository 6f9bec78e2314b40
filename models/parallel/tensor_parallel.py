"""Tensor parallelism: which rank this is, and the collectives that layers and engine need.

With one rank every collective returns its input. Layers ask for their share of a dimension here and nowhere else.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from models.errors import ConfigError
from models.parallel.calls import Call, CallReceiver, CallSender
from models.parallel.shared_store import RemoteStore, SharedStore
from models.weights.loadable import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorParallel:
    """One rank's place among the `size` shards of a replica, `num_here` of them on its machine. `group` carries tensors,
    `calls` what rank 0 asks of the others, and `group` finds its members through `store`; all None with a single rank."""

    rank: int = 0
    size: int = 1
    num_here: int = 1
    group: "dist.ProcessGroup | None" = field(default=None, compare=False)
    calls: CallSender | CallReceiver | None = field(default=None, compare=False)
    store: SharedStore | RemoteStore | None = field(default=None, compare=False)

    def share(self, total: int, what: str) -> Range:
        """The equal, contiguous part [start, stop) of `total` that this rank holds.

        Raises:
            ConfigError: `total` does not divide by the number of ranks.
        """
        if total % self.size:
            raise ConfigError(
                f"{total} {what} cannot be split over {self.size} shards; choose a tensor_parallel_size that divides {total}"
            )
        part = total // self.size
        return self.rank * part, (self.rank + 1) * part

    def kv_heads(self, num_query_heads: int, num_kv_heads: int) -> tuple[int, ...]:
        """The key/value heads that this rank's query heads use, in order.

        Where the ranks cut through groups of query heads, ranks hold copies of the same head; and a rank whose groups
        are of several sizes holds a head more than once, so that each of them serves the same number of query heads.

        Raises:
            ConfigError: the query heads cannot be split over the ranks.
        """
        start, stop = self.share(num_query_heads, "attention heads")
        group = num_query_heads // num_kv_heads
        used = [head // group for head in range(start, stop)]
        served = math.gcd(*(used.count(head) for head in set(used)))
        return tuple(used[::served])

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of `x` over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def all_gather(self, x: torch.Tensor) -> torch.Tensor:
        """Every rank's `x` [..., N/size] side by side in rank order: [..., N]."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.cat(parts, dim=-1)

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        """Rank 0's `x`, in place."""
        if self.size > 1:
            dist.broadcast(x, src=0, group=self.group)
        return x

    def least(self, value: int) -> int:
        """The smallest `value` of any rank."""
        if self.size == 1:
            return value
        found = torch.tensor([value])
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.group)
        return int(found)

    def call(self, method: str, *arguments: object) -> None:
        """Has the other ranks call a method of what they run (`models.engine.follower`). Does
        nothing on these other ranks themselves, nor if there are no other ranks.

        Raises:
            EngineError: one of them is gone.
        """
        if isinstance(self.calls, CallSender):
            self.calls.send(Call(method=method, arguments=arguments))

    def end(self) -> None:
        """Tells the other ranks that there are no more calls.

        Raises:
            EngineError: one of them is gone.
        """
        if isinstance(self.calls, CallSender):
            self.calls.send(None)


SINGLE = TensorParallel()
