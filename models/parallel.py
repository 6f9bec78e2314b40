"""Tensor parallelism: which rank this is, and the three collectives the layers need.

With one rank every collective returns its input. Layers ask for their share of a dimension here and nowhere else.
"""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from models.errors import ConfigError
from models.layers.loadable import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorParallel:
    """One rank's place among the `size` shards of a replica. `group` carries the tensors; None with a single
    rank."""

    rank: int = 0
    size: int = 1
    group: "dist.ProcessGroup | None" = field(default=None, compare=False)

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

    def kv_heads(self, total: int) -> Range:
        """The key/value heads this rank holds: its share, or a copy of the one its query heads use when there are
        fewer heads than ranks.

        Raises:
            ConfigError: neither number divides the other.
        """
        if total % self.size and self.size % total == 0:
            head = self.rank // (self.size // total)
            return head, head + 1
        return self.share(total, "key/value heads")

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
            dist.broadcast(x, src=dist.get_global_rank(self.group, 0) if self.group else 0, group=self.group)
        return x


SINGLE = TensorParallel()
