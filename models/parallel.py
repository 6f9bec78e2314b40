"""Tensor parallelism: which rank this is, the collectives that layers and engine need, and how ranks find each other.

With one rank every collective returns its input. Layers ask for their share of a dimension here and nowhere else.
"""

import math
import pickle
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from models.errors import ConfigError, EngineError
from models.layers.loadable import Range

JOIN_S = 300.0
STEP_S = 600.0  # a collective that takes longer has lost a rank
IDLE = timedelta(days=3650)  # how long followers wait for their next call
CALL_BYTES = 16 * 2**10  # of a call that are sent at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What rank 0 has the others do: a method of what they run, and its arguments."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorParallel:
    """One rank's place among the `size` shards of a replica. `group` carries tensors, `calls` what rank 0 asks of the
    others; both None with a single rank."""

    rank: int = 0
    size: int = 1
    group: "dist.ProcessGroup | None" = field(default=None, compare=False)
    calls: "dist.ProcessGroup | None" = field(default=None, compare=False)

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
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self.calls)
        return int(found)

    def call(self, value: Call | None = None) -> Call | None:
        """Rank 0's call, None for the end, on every rank; the others pass nothing, and wait for it.

        One message of `CALL_BYTES` carries most calls; a longer one is followed by its rest.
        """
        head = torch.zeros(CALL_BYTES, dtype=torch.uint8)
        content = b""
        if self.rank == 0:
            content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
            message = len(content).to_bytes(8, "little") + content
            head[: len(message)] = torch.frombuffer(bytearray(message[:CALL_BYTES]), dtype=torch.uint8)
        dist.broadcast(head, src=0, group=self.calls)
        if self.rank > 0:
            content = head.numpy().tobytes()[8:]
        size, sent = int.from_bytes(head[:8].numpy().tobytes(), "little"), CALL_BYTES - 8
        if size > sent:
            rest = torch.zeros(size - sent, dtype=torch.uint8)
            if self.rank == 0:
                rest = torch.frombuffer(bytearray(content[sent:]), dtype=torch.uint8)
            dist.broadcast(rest, src=0, group=self.calls)
            content = content[:sent] + rest.numpy().tobytes()
        if self.rank == 0:
            return value
        found: Call | None = pickle.loads(content[:size])  # noqa: S301 - from rank 0 alone
        return found


SINGLE = TensorParallel()


def join(rank: int, size: int, address: str, *, device: torch.device) -> TensorParallel:
    """Meets the other ranks of a replica at `address` (HOST:PORT, where rank 0 listens), and gives this one its place.
    Tensors go over NCCL between GPUs, over gloo between CPUs. A process is a rank of one replica at a time.

    Raises:
        EngineError: not all ranks came within `JOIN_S`.
    """
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=JOIN_S),
        )
        calls = dist.new_group(backend="gloo", timeout=IDLE)
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"rank {rank} of {size} did not meet the others at {address}: {error}") from error
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=STEP_S))
    return TensorParallel(rank=rank, size=size, group=dist.group.WORLD, calls=calls)


def leave(tp: TensorParallel) -> None:
    """Ends this process's part in a replica."""
    if tp.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
