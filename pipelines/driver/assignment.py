"""What the graph of a run is to do: all units that are not committed, or the dead letters of some
that are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.driver.ending import Ending
from pipelines.job import MaxFailed
from pipelines.ledger.commit import CommitsUnits
from pipelines.ledger.tally import CountsUnits
from pipelines.rows.unit import Unit
from pipelines.units.reading import ReadsUnits


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """The units, anew at each call; what reads them, what commits them, and what counts those that
    are. More dead letters than `max_failed` end it. `trial` is what the task was told before all
    rows. `conclude` says how it ends, given whether it had to before it was done."""

    units: Callable[[], Iterator[Unit]]
    reader: ReadsUnits
    committer: CommitsUnits
    tally: CountsUnits
    max_failed: MaxFailed | None
    trial: tuple[float, ...] | None
    conclude: Callable[[bool], Ending]
