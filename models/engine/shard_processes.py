"""The other ranks of a replica, and how an engine gets them.

    shards = start_shards(ShardWork(load=..., options=...), size)
    tp = shards.join()       rank 0's place among them, for `load_model`
    shards.close()

`LocalShards` are processes of this machine. On a cluster the ranks are actors (`actors.engine.shard_group`).
"""

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from models.config.model_config import ModelConfig
from models.config.shard_sizes import check_size
from models.engine.options import EngineOptions
from models.errors import EngineError
from models.loading.choices import choose_device
from models.parallel.rendezvous import Invitation, Meeting, leave
from models.parallel.tensor_parallel import SINGLE, TensorParallel

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
END_S = 10.0
SCORED_TOKENS = 1024
"""Tokens of a pass of the scorer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWork:
    """What every rank of a replica loads and computes: `load` are the arguments of `load_model`. All ranks can score, packing
    `max_num_scored_tokens` a pass; with `options` they generate too. `num_threads` is what one product of a rank uses."""

    load: dict[str, Any]
    options: EngineOptions | None = None
    max_num_scored_tokens: int = SCORED_TOKENS
    num_threads: int = field(default_factory=torch.get_num_threads)


class Shards(Protocol):
    """The ranks other than 0; whoever starts them is rank 0."""

    def join(self) -> TensorParallel:
        """Rank 0's place among them, once all are there.

        Raises:
            EngineError: one of them ended, or did not come in time.
        """

    def close(self) -> None:
        """Tells them to end, and ends those that do not listen."""

    def kill(self) -> None:
        """Ends them whatever they are at, which may be waiting for what never comes."""


StartShards = Callable[[ShardWork, int], Shards]


class NoShards:
    """Those of a model on a single rank."""

    def join(self) -> TensorParallel:
        return SINGLE

    def close(self) -> None: ...

    def kill(self) -> None: ...


def start_shards(work: ShardWork, size: int, start: StartShards) -> Shards:
    """The ranks 1 to `size` - 1, made by `start` if there are any.

    Raises:
        ConfigError: the model cannot be split into so many; nothing was started.
    """
    if size == 1:
        return NoShards()
    check_size(ModelConfig.from_pretrained(work.load["path"]), size)
    return start(work, size)


def tell_to_end(tp: TensorParallel) -> None:
    """Tells the other ranks of rank 0 `tp` that it is over; they need not hear it."""
    try:
        tp.end()
    except EngineError as error:  # one is gone already, and so the others are going
        logger.debug("the shards could not be told to end: %s", error)


class LocalShards:
    """Processes of this machine. They end when they are told to, and by themselves when rank 0 is gone."""

    def __init__(self, work: ShardWork, size: int) -> None:
        self._device = choose_device(work.load["device"])
        self._meeting = Meeting.open(LOOPBACK, size)
        self._tp: TensorParallel | None = None
        self._processes = {rank: self._start(work, self._meeting.invitation(rank)) for rank in range(1, size)}

    def join(self) -> TensorParallel:
        self._tp = self._meeting.join(self._device, check=self._check)
        return self._tp

    def close(self) -> None:
        if self._tp is not None:
            tell_to_end(self._tp)
            self._end(END_S)

    def kill(self) -> None:
        self._end(0)

    def _check(self) -> None:
        for rank, process in self._processes.items():
            if process.poll() is not None:
                raise EngineError(f"shard {rank} ended with exit status {process.returncode} before it had joined")

    def _end(self, patience_s: float) -> None:
        self._meeting.close()
        if self._tp is not None:
            leave(self._tp)
        for process in self._processes.values():
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._tp, self._processes = None, {}

    def _start(self, work: ShardWork, invitation: Invitation) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-m", "models.engine.follower"], stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps((work, invitation)))
        process.stdin.close()
        return process
