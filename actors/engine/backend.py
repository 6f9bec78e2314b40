"""What an engine's core computes with."""

from typing import Protocol

from actors.work import EngineAnswer, EngineWork, OnAnswered
from models.engine.memory import MemoryPlan


class Backend(Protocol):
    """What computes: a generation engine or a scorer."""

    @property
    def memory(self) -> MemoryPlan: ...

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]: ...

    def close(self) -> None: ...
