"""The engine stage: what Ray Data runs between reading and committing, fed with blocks of one unit each. A cascade has one a step.

It computes nothing. One process hands the work of every unit, unopened, to an engine of the run that has room for it
(`pipelines.graph.engine_calls`), and puts the answers in its place.
"""

import asyncio

import pyarrow as pa

from pipelines.graph.engine_calls import EngineCalls
from pipelines.graph.outcomes import LeftOut
from pipelines.ledger.permit import Permit, PermitOfBegun
from pipelines.rows.blocks import ANSWERS, PREPARED, WORK, packed, packed_in, with_packed


class AskEngines:
    """One per step of a run; one call per unit, as many at a time as all engines may have."""

    def __init__(self, engines: str, calls_each: int, permit: Permit | PermitOfBegun) -> None:
        """Asks the engines whose names begin with `engines`, each for up to `calls_each` units at a time."""
        self._permit = permit
        self._calls = EngineCalls(engines, calls_each, self._is_permitted)

    async def __call__(self, block: pa.Table) -> pa.Table:
        """The block with answers in the place of work. A block without work, of a unit that could not be read, passes through."""
        work = packed_in(block, WORK)
        if work is None:
            return with_packed(block, WORK, ANSWERS, None)
        answers = await self._calls.compute(work)
        if answers is None:
            return with_packed(with_packed(block, PREPARED, PREPARED, packed(LeftOut())), WORK, ANSWERS, None)
        return with_packed(block, WORK, ANSWERS, answers)

    async def _is_permitted(self) -> bool:
        return await asyncio.to_thread(self._permit.is_given)
