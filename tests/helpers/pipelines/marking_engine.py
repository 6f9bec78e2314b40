"""An engine that is asked for units and computes nothing. A module that imports little: Ray starts it in process after process."""

import asyncio
import os
import signal
from pathlib import Path

from actors.engine.load import EngineLoad


class MarkingEngine:
    """Answers with its name once `go` is there, and leaves a mark for each unit that it was given. It dies of the unit `poison`, but
    once."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder, self._is_retired = name, folder, False
        self._num_calls = 0

    def load(self) -> EngineLoad:
        return EngineLoad(process=self._name)

    def retire(self) -> None:
        self._is_retired = True

    async def compute(self, work: bytes) -> bytes | None:
        if self._is_retired:
            return None
        if work == b"poison" and not (self._folder / "poisoned").exists():
            (self._folder / "poisoned").write_text(self._name)
            os.kill(os.getpid(), signal.SIGKILL)
        self._num_calls += 1
        (self._folder / f"given-{self._name}-{self._num_calls}").touch()
        while not (self._folder / "go").exists():
            await asyncio.sleep(0.02)
        self._num_calls -= 1
        return work + b" by " + self._name.encode()
