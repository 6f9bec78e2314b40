"""How fast an engine of a run is, found out on some of its rows before the run's units are settled.

Rows of units all over the input are read and prepared where the run's own are, and given to the first engine that is ready: few, then
four times as many while that takes seconds. What it answers is thrown away.
"""

import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import ray
from ray.exceptions import RayError

from pipelines.driver.first_engine import FirstEngine
from pipelines.graph.read_stage import ReadSettings, read_and_prepare
from pipelines.rows.blocks import WORK, packed_in
from pipelines.rows.unit import Unit

logger = logging.getLogger(__name__)

BATCHES: Final = (8, 32, 128)
"""Rows of one batch after the other. The first one warms the engine up."""

BUDGET_S: Final = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedProbe:
    """What it takes to try rows on an engine of the run."""

    read: ReadSettings
    read_cpus: float
    engine: FirstEngine

    def rows_per_s(self, units: Sequence[Unit]) -> float | None:
        """Rows that an engine computes in a second, from the first rows of these units; None if no row of them can be computed, or no
        engine: the run will say why."""
        cut = [replace(unit, num_rows=min(size, unit.num_rows)) for unit, size in zip(units, BATCHES, strict=False)]
        try:
            return self._measured([unit.num_rows for unit in cut], self._prepared(cut))
        except RayError as error:
            logger.info("the speed of an engine could not be measured: %s", str(error).partition("\n")[0])
            return None

    def _prepared(self, units: Sequence[Unit]) -> list[bytes | None]:
        """The work of each unit, packed; None where there is none to do."""
        task = _prepare.options(num_cpus=self.read_cpus).remote(pickle.dumps(self.read), pickle.dumps(tuple(units)))
        found: list[bytes | None] = self.engine.waited_for(task)
        return found

    def _measured(self, sizes: Sequence[int], works: Sequence[bytes | None]) -> float | None:
        speed, spent_s = None, 0.0
        for size, work in zip(sizes, works, strict=False):  # fewer once the run starts no new units
            if work is None or (speed is not None and spent_s + size / speed > BUDGET_S):
                continue
            answers = self.engine.answers(work)
            if answers is None:
                return speed
            seconds = max(answers.seconds, 1e-6)
            speed, spent_s = size / seconds, spent_s + seconds
        return speed


@ray.remote
def _prepare(settings: bytes, units: bytes) -> list[bytes | None]:
    return [packed_in(block, WORK) for block in read_and_prepare(settings, units)]
