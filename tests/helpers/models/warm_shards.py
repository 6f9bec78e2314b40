"""Shards that are processes of their own as `LocalShards` are, but forked from one that has imported torch: three seconds less each."""

import multiprocessing
import subprocess
from multiprocessing.process import BaseProcess
from typing import cast

from models.engine.follower import follow
from models.engine.shard_processes import LocalShards, ShardWork
from models.parallel.rendezvous import Invitation

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "bitsandbytes"])


class _Forked:
    """What `LocalShards` asks of a process, as `subprocess` has it."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("a forked shard", timeout or 0)

    def kill(self) -> None:
        self._process.kill()


class WarmShards(LocalShards):
    """Ranks forked from the warm process."""

    def _start(self, work: ShardWork, invitation: Invitation) -> "subprocess.Popen[bytes]":
        process = FORKS.Process(target=follow, args=(work, invitation), daemon=True)
        return cast("subprocess.Popen[bytes]", _Forked(process))
