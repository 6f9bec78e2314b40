"""The rows of units that are computed but not committed yet, as the engines tell: what progress shows beside the rows that are done.

A unit counts until it is committed, also while its answers are on their way to the output. What an engine process had that has
died counts no more: it is computed again.
"""

from collections.abc import Callable, Sequence

from actors.engine.load import CallLoad, EngineLoad
from pipelines.rows.unit import unit_of_work


class RowsInFlight:
    """Follows what engines say of units with `unit_rows` rows at most."""

    def __init__(self, unit_rows: int, is_committed: Callable[[int], bool]) -> None:
        self._unit_rows, self._is_committed = unit_rows, is_committed
        self._by_process: dict[str, dict[int, int]] = {}

    def look(self, loads: Sequence[EngineLoad]) -> None:
        """Takes in what every engine that is there has said last."""
        before = self._by_process
        self._by_process = {load.process: before.get(load.process, {}) | self._rows_of(load) for load in loads}

    @property
    def num_rows(self) -> int:
        """Rows that are answered, of units that are not committed; a unit that two engines have counts once."""
        rows: dict[int, int] = {}
        for of_process in self._by_process.values():
            for unit, count in of_process.items():
                if not self._is_committed(unit):
                    rows[unit] = max(count, rows.get(unit, 0))
        return sum(rows.values())

    def _rows_of(self, load: EngineLoad) -> dict[int, int]:
        units = ((unit_of_work(call.name), call) for call in load.calls)
        return {unit: self._rows_answered(call) for unit, call in units if unit is not None}

    def _rows_answered(self, call: CallLoad) -> int:
        """A row has as many requests as another where it has several, as far as can be told here: windows of texts."""
        if not call.num_requests:
            return 0
        share = call.num_answered / call.num_requests
        return min(call.num_answered, int(self._unit_rows * share))
