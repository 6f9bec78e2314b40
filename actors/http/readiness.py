"""Whether all models can serve: asked of the engines once a second at most, however many ask here."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from actors.http.bodies.labelling_schema import Readiness
from actors.http.errors import ApiError
from models.engine.scheduling.stats import EngineStats

FRESH_S = 1.0


class ReadinessCheck:
    """Asks for the stats of all models, and remembers for a second which of them serve. Callers
    that ask meanwhile wait for the same answer."""

    def __init__(
        self,
        stats: Callable[[], Awaitable[Mapping[str, EngineStats | None]]],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`stats` gives each model's load, None for one that cannot serve."""
        self._stats, self._clock = stats, clock
        self._asking: asyncio.Task[dict[str, bool]] | None = None
        self._answered_at = 0.0

    async def look(self, *, tells_names: bool) -> Readiness:
        """That every model serves, and their names for those who may know.

        Raises:
            ApiError: 503, one does not.
        """
        serving = await self._serving()
        lost = [name for name, serves in serving.items() if not serves]
        if lost:
            said = f"models that cannot serve: {', '.join(lost)}" if tells_names else "not every model can serve"
            raise ApiError(503, said, code="not_ready")
        return Readiness(models=list(serving) if tells_names else None)

    async def _serving(self) -> dict[str, bool]:
        """Whether each model serves. A client that leaves does not take the answer from the others."""
        if self._asking is None or (self._asking.done() and self._clock() - self._answered_at >= FRESH_S):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, bool]:
        try:
            return {name: found is not None for name, found in (await self._stats()).items()}
        finally:
            self._answered_at = self._clock()
