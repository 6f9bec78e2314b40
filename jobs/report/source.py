"""A run's output folder, read for a report: receipts as columns, and single units' results, dead letters and inputs as JSON values."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow.parquet as pq

from jobs.errors import UsageError
from jobs.report.facts import Floats
from pipelines.errors import DamageError, OutputError, SourceError
from pipelines.formats.batch_lines import BATCH_FORMAT, shown_row
from pipelines.formats.json_line import parse_line
from pipelines.formats.json_values import json_rows
from pipelines.io.inputs import Storage
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import OutputSpec
from pipelines.ledger.commit import PROMPT
from pipelines.ledger.planned_units import planned_units, rows_of_units, shard_of_file
from pipelines.ledger.receipts import REPAIR, Receipt, Shard, iter_receipts, read_receipt, receipt_name
from pipelines.ledger.run_record import RUN, RunRecord, read_record
from pipelines.ledger.unreadable import read_unreadable
from pipelines.rows.rows import StepCounts
from pipelines.rows.unit import Unit
from pipelines.task_base.task import Task
from pipelines.tasks.kinds import recorded_parts
from pipelines.units.reading import UnitReader

JsonRow = dict[str, Any]
Found = TypeVar("Found")
MAX_SKIPPED_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptColumns:
    """All receipts of a run, one value a unit in each array [units], in the order of the units.

    `committed` is when each was committed, in seconds of some clock. `steps` are the sums of what
    each model of a cascade did; `generations` how many rows are of each later generation of the
    spec, by its number.
    """

    units: Floats
    written: Floats
    failed: Floats
    prompt_tokens: Floats
    cached_tokens: Floats
    completion_tokens: Floats
    seconds: Floats
    committed: Floats
    steps: Sequence[StepCounts]
    generations: Mapping[int, int]


def _no_steps(record: RunRecord) -> list[StepCounts]:
    """One for each model of a cascade; none without one."""
    return [StepCounts() for _ in record.step_names] if record.bounds else []


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutput:
    """An output folder with a run in it. `source` reads where the run's input is; without the job's storage options that may fail, and then
    a report does without. `part` is the name of one of several tasks, whose columns alone are then looked at.
    """

    store: Store
    record: RunRecord
    source: Storage
    part: str = ""

    @classmethod
    def open(cls, spec: OutputSpec, *, input_options: Mapping[str, Any]) -> "RunOutput":
        """Raises:
        UsageError: there is no run.
        """
        store = open_store(spec)
        record = read_record(store)
        if record is None:
            raise UsageError(f"{store.location} has no {RUN}: no run was planned there; give the output.path of a run")
        return cls(store=store, record=record, source=Storage(input_options))

    @property
    def prefix(self) -> str:
        """What stands before the task's own names of its columns."""
        prefix = str(self.record.spec["output"]["prefix"])
        return f"{prefix}{self.part}_" if self.part else prefix

    def parts(self) -> dict[str, "RunOutput"]:
        """The results of each of several tasks, by name; of one task these, without a name."""
        return {name: replace(self, part=name) for name in self._tasks()}

    @property
    def task(self) -> type[Task]:
        """What kind of task it was.

        Raises:
            DamageError: there is no such kind.
        """
        return self._tasks()[self.part]

    def _tasks(self) -> Mapping[str, type[Task]]:
        try:
            return recorded_parts(self.record.spec["task"])
        except KeyError as error:
            raise DamageError(
                f"{self.store.location}/{RUN} names a task of the unknown kind {error}; use the version of Millrace that ran it"
            ) from error

    @property
    def carried(self) -> frozenset[str]:
        """The columns of the results that are the input's own. The task wrote the others: no two have one name."""
        columns = self.record.spec["input"]["columns"]
        return frozenset(self.record.schema.names if columns is None else columns)

    @property
    def prompt(self) -> str | None:
        """What the model has read for the run's first row; None in a folder of a version before, or while that row is not done."""
        content = self.store.read(PROMPT)
        return None if content is None else content.decode(errors="replace")

    def written(self, names: Iterable[str]) -> dict[str, str]:
        """Result columns of the task's own `names`: the name in the output, with its prefix, to the task's. A task may leave some of its
        columns out, and their names may be those of carried ones."""
        named = {self.prefix + name: name for name in names}
        return {name: own for name, own in named.items() if name not in self.carried}

    def result_of(self, row: JsonRow, written: Mapping[str, str]) -> JsonRow | None:
        """A row's result by the task's own names (`written`); None if only others of several tasks have answered it, for then
        all its columns are null."""
        found = {own: row[name] for name, own in written.items() if name in row}
        is_unanswered = bool(self.part) and all(value is None for value in found.values())
        return None if is_unanswered else found

    def first_result(self, units: Iterable[int], names: Iterable[str]) -> JsonRow | None:
        """What the columns `names` of the task hold in the first row of `units` that it has answered; None if there is none.

        Raises:
            DamageError: a file of the output is not what was committed.
        """
        written = self.written(names)
        rows = (self.result_of(row, written) for unit in units for row in self.results(unit, [*written]))
        return next((row for row in rows if row is not None), None)

    def receipts(self, times: Mapping[str, float]) -> ReceiptColumns:
        """All receipts; `times` is when each receipt's file was written, by its name.

        Raises:
            DamageError: one is not as it was written.
        """
        rows, steps, generations = [], _no_steps(self.record), Counter[int]()
        for receipt in iter_receipts(self.store, self.record.format, rows_of_units(self.store, self.record)):
            row = (
                receipt.unit,
                receipt.num_written,
                receipt.num_failed,
                receipt.prompt_tokens,
                receipt.cached_tokens,
                receipt.completion_tokens,
                receipt.seconds,
                times.get(receipt_name(receipt.unit).partition("/")[2], 0.0),
            )
            rows.append(row)
            steps = [of_run + step for of_run, step in zip(steps, receipt.steps, strict=True)]
            generations.update({each.generation: len(each.rows) for each in receipt.generations})
        columns = np.array(sorted(rows), dtype=np.float64).reshape(len(rows), 8).T
        return ReceiptColumns(
            **dict(zip(ReceiptColumns.__dataclass_fields__, columns, strict=False)),
            steps=steps,
            generations=generations,
        )

    def units(self, indices: Collection[int]) -> dict[int, Unit]:
        """The plan's units of these numbers."""
        wanted = set(indices)
        return {unit.index: unit for unit in planned_units(self.store, self.record) if unit.index in wanted}

    def results(self, unit: int, columns: Sequence[str] | None = None) -> list[JsonRow]:
        """A committed unit's rows, in input order; with `columns` those that exist of them.

        Raises:
            DamageError: its file is not what was committed.
        """
        return self._of_unit(unit, lambda receipt: self._rows(receipt, columns))

    def numbered_results(self, unit: Unit, columns: Sequence[str] | None = None) -> list[tuple[int, JsonRow]]:
        """The same with the number of each row in the unit's file.

        Raises:
            DamageError: a file of the unit is not what was committed.
        """

        def numbered(receipt: Receipt) -> list[tuple[int, JsonRow]]:
            failed = {letter["row"] for letter in self._letters(receipt)} if receipt.num_failed else frozenset()
            numbers = [row for row in range(unit.first_row, unit.first_row + unit.num_rows) if row not in failed]
            return list(zip(numbers, self._rows(receipt, columns), strict=True))

        return self._of_unit(unit.index, numbered)

    def _rows(self, receipt: Receipt, columns: Sequence[str] | None) -> list[JsonRow]:
        with self._reading(receipt.data) as file:
            if self.record.format != "parquet":
                parse = shown_row if self.record.format == BATCH_FORMAT else parse_line
                rows: list[JsonRow] = [parse(line) for line in file]
                return rows if columns is None else [{key: row[key] for key in columns if key in row} for row in rows]
            table = pq.ParquetFile(file)
            names = [key for key in table.schema_arrow.names if columns is None or key in columns]
            return json_rows(table.read(columns=names))

    def dead_letters(self, unit: int) -> list[JsonRow]:
        """A committed unit's failed rows.

        Raises:
            DamageError: its file is not what was committed.
        """
        return self._of_unit(unit, self._letters)

    def _letters(self, receipt: Receipt) -> list[JsonRow]:
        with self._reading(receipt.errors) as file:
            return [parse_line(line) for line in file]

    def _of_unit(self, unit: int, read: Callable[[Receipt], Found]) -> Found:
        """What `read` finds of a committed unit; once more if that is committed anew meanwhile,
        which removes the files it had."""
        receipt = self._receipt(unit)
        while True:
            try:
                return read(receipt)
            except DamageError:
                before, receipt = receipt, self._receipt(unit)
                if receipt == before:
                    raise

    def _receipt(self, unit: int) -> Receipt:
        return read_receipt(self.store, unit, self.record.format)

    @contextmanager
    def _reading(self, shard: Shard) -> Iterator[BinaryIO]:
        """A file that a receipt names, if it is still the very one."""
        place = f"{self.store.location}/{shard.name}"
        try:
            file = self.store.open(shard.name)
        except OutputError as error:
            raise DamageError(f"{error}; {REPAIR}") from error
        with file:
            if shard_of_file(shard.name, file) != shard:
                raise DamageError(f"{place} is not what was committed; {REPAIR}")
            file.seek(0)
            yield file

    def unreadable_units(self) -> list[JsonRow]:
        """The units that could not be read, as `errors/units.jsonl` lists them."""
        return read_unreadable(self.store)

    def inputs(self, unit: Unit) -> dict[int, JsonRow]:
        """A unit's rows as they came in, by row number; empty where reading them again is impossible or would take long."""
        if not unit.is_cuttable and unit.offset > MAX_SKIPPED_BYTES:
            return {}
        declared = frozenset(self.record.spec["input"]["schema"] or ())
        reader = UnitReader(schema=self.record.schema, declared=declared, storage=self.source)
        try:
            rows = reader.read_unit(unit)
        except SourceError:
            return {}
        return dict(zip(rows.row_numbers.tolist(), rows.rows.as_json(), strict=True))

    def letters_of_units(self, units: Sequence[int]) -> Iterator[JsonRow]:
        """The dead letters of several units."""
        for unit in units:
            yield from self.dead_letters(unit)
