"""The other ranks of a replica, as processes of this machine.

    shards = LocalShards(ShardWork(load=..., options=...), size)
    tp = shards.join()       rank 0's place among them, for `load_model`
    shards.close()

With one rank there are none, and nothing happens. On a cluster the ranks are actors instead.
"""

import logging
import pickle
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import torch

from models.config import ModelConfig
from models.engine.options import EngineOptions
from models.parallel import SINGLE, TensorParallel, join, leave
from models.registry import choose_device
from models.shard_sizes import check_size

logger = logging.getLogger(__name__)

END_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWork:
    """What every rank of a replica loads and computes: `load` are the arguments of `load_model`. With `options` the ranks
    generate, without they score, packing `max_num_batched_tokens`. `num_threads` is what one product of a rank uses."""

    load: dict[str, Any]
    options: EngineOptions | None = None
    max_num_batched_tokens: int = 0
    num_threads: int = field(default_factory=torch.get_num_threads)


class LocalShards:
    """The ranks 1 to `size` - 1; whoever makes them is rank 0. They end when they are told to, and by themselves when
    rank 0 is gone."""

    def __init__(self, work: ShardWork, size: int) -> None:
        """Starts the processes.

        Raises:
            ConfigError: the model cannot be split into so many.
        """
        self._work, self._size = work, size
        self._tp: TensorParallel | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        if size == 1:
            return
        check_size(ModelConfig.from_pretrained(work.load["path"]), size)
        self._address = f"127.0.0.1:{_free_port()}"
        self._processes = [self._start(rank) for rank in range(1, size)]

    def join(self) -> TensorParallel:
        """Rank 0's place among them, once all are there.

        Raises:
            EngineError: one of them did not come in time.
        """
        if self._size == 1:
            return SINGLE
        self._tp = join(0, self._size, self._address, device=choose_device(self._work.load["device"]))
        return self._tp

    def close(self) -> None:
        """Tells the processes to end, and kills those that do not listen. To be called in the thread that calls them."""
        if self._tp is not None:
            try:
                self._tp.call(None)
            except RuntimeError as error:  # one is gone already, and so the others are going
                logger.debug("the shards could not be told to end: %s", error)
            self._end(END_S)

    def kill(self) -> None:
        """Ends the processes whatever they are at, which may be waiting for a call that never comes."""
        self._end(0)

    def _end(self, patience_s: float) -> None:
        if self._tp is not None:
            leave(self._tp)
        for process in self._processes:
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._tp, self._processes = None, []

    def _start(self, rank: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "models.engine.follower", str(rank), str(self._size), self._address]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(self._work))
        process.stdin.close()
        return process


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
