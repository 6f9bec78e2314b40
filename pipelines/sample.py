"""A sample of a corpus: some rows from units all over it, read and prepared as the run would.

    picker = UnitPicker(num_units=32, seed=job.seed)
    plan = plan_units(..., sink=picker)
    sample = sample_rows(picker.units, reader, preparer, num_rows=1000)

Deterministic: the same corpus and seed give the same sample.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipelines.errors import OverrunsError, SourceError
from pipelines.rows.rows import PreparedUnit, UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.task_base.requests import ModelRequest
from pipelines.units.reading import UnitReader

MAX_OVERRUNS = 3
"""Rows that go over the limits of preparing one, after which no more are sampled."""


class UnitPicker:
    """Keeps a fair draw of the units it is given, however many there are (reservoir sampling)."""

    def __init__(self, *, num_units: int, seed: int) -> None:
        self._num_units = num_units
        self._random = random.Random(seed)
        self._kept: list[Unit] = []
        self._num_seen = 0

    def __call__(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self._num_seen += 1
            if len(self._kept) < self._num_units:
                self._kept.append(unit)
            elif (place := self._random.randrange(self._num_seen)) < self._num_units:
                self._kept[place] = unit

    @property
    def units(self) -> list[Unit]:
        """The units kept, in the order of the corpus."""
        return sorted(self._kept, key=lambda unit: unit.index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Some rows of a corpus as the engine would get them.

    `prompt_tokens` has one value a good row: the tokens of all its windows. `failures` counts the others by kind. `rows` holds the
    requests of each good row, in the order of the corpus. `cut_short` says why there are fewer rows than were wanted. `prompt` is what
    the model reads for the first good one, special tokens included.
    """

    prompt_tokens: npt.NDArray[np.int64]
    failures: Mapping[str, int]
    rows: Sequence[Sequence[ModelRequest]]
    cut_short: str | None = None
    prompt: str | None = None

    @property
    def num_rows(self) -> int:
        return len(self.rows) + sum(self.failures.values())

    @property
    def mean_prompt_tokens(self) -> float:
        """Prompt tokens per row, failed ones included (they cost none)."""
        return float(self.prompt_tokens.sum()) / self.num_rows if self.num_rows else 0.0


class UnitPreparer(Protocol):
    """Prepares units, and counts the rows that went over its limits; see `IsolatedPreparer`."""

    @property
    def num_overruns(self) -> int: ...
    def prepare(self, rows: UnitRows) -> PreparedUnit: ...


def sample_rows(units: Sequence[Unit], reader: UnitReader, preparer: UnitPreparer, *, num_rows: int) -> Sample:
    """Takes about `num_rows` rows, evenly from `units`; fewer where rows keep going over the preparer's limits, which takes seconds
    for each.

    Raises:
        SourceError: a unit cannot be read.
    """
    total = sum(unit.num_rows for unit in units)
    rows: list[Sequence[ModelRequest]] = []
    failures: Counter[str] = Counter()
    cut_short = prompt = None
    for read in reader.read_units(units):
        if isinstance(read, UnreadableUnit):
            raise SourceError(read.message)
        wanted = max(1, round(num_rows * read.unit.num_rows / total)) if total else 0
        try:
            prepared = preparer.prepare(thinned(read, wanted, keeps_first=prompt is None))
        except OverrunsError as error:
            cut_short = str(error)
            break
        failures.update(failure.kind for failure in prepared.failures)
        rows += rows_of(prepared)
        prompt = prompt or prepared.prompt
        if preparer.num_overruns >= MAX_OVERRUNS:
            cut_short = f"{preparer.num_overruns} rows went over the limits of preparing one"
            break
    tokens = [sum(len(request.token_ids) for request in requests) for requests in rows]
    return Sample(
        prompt_tokens=np.array(tokens, np.int64),
        failures=dict(failures),
        rows=rows,
        cut_short=cut_short,
        prompt=prompt,
    )


def thinned(read: UnitRows, wanted: int, *, keeps_first: bool = False) -> UnitRows:
    """A fair draw of about `wanted` rows, those that could not be read among them; the first one is, if it is to be kept."""
    numbers = np.sort(np.concatenate([read.row_numbers, [failure.row for failure in read.failures]]).astype(np.int64))
    draw = np.random.default_rng(read.unit.index)
    picked = np.sort(draw.choice(numbers, min(wanted, len(numbers)), replace=False))
    if keeps_first:
        picked[:1] = numbers[:1]
    is_picked = np.isin(read.row_numbers, picked)
    return UnitRows(
        unit=read.unit,
        rows=read.rows.kept(is_picked),
        row_numbers=read.row_numbers[is_picked],
        failures=tuple(failure for failure in read.failures if failure.row in picked),
    )


def rows_of(prepared: PreparedUnit) -> Iterable[Sequence[ModelRequest]]:
    """The requests of each good row; an extraction from an empty text has none."""
    rows: list[list[ModelRequest]] = [[] for _ in range(prepared.rows.num_rows)]
    for request in prepared.requests:
        rows[request.row].append(request)
    return rows
