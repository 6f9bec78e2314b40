"""The two runs of a comparison: opened, complete, of one kind of task, and over files that are the same."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from jobs.errors import UsageError
from jobs.report.source import JsonRow, RunOutput
from pipelines.io.inputs import is_remote
from pipelines.job import OutputSpec
from pipelines.ledger.planned_units import planned_units
from pipelines.rows.unit import Unit
from pipelines.task_base.compared import Said

BY = "match rows by a carried column instead, with --by COLUMN"


@dataclass(frozen=True, kw_only=True, slots=True)
class SideRow:
    """A row of one run: its file and number there, its result by the task's own names of columns (None: it is a dead letter), and the
    carried columns that were asked for."""

    path: str
    number: int
    result: JsonRow | None
    carried: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """A complete run; `files` are the units of each file of its input, in order."""

    output: RunOutput
    files: Mapping[str, Sequence[Unit]]

    @classmethod
    def of(cls, output: RunOutput, units: Sequence[Unit], *, by_path: bool) -> Self:
        """A run with the units of its plan; files go by their whole paths, or by those below the input's root."""
        files: defaultdict[str, list[Unit]] = defaultdict(list)
        for unit in units:
            files[unit.path if by_path else unit.relative_path].append(unit)
        return cls(output=output, files=files)

    @property
    def name(self) -> str:
        return self.output.store.location

    def rows(self, file: str, by: str | None = None) -> Iterator[SideRow]:
        """The rows of a file, by number, with the carried column `by`."""
        written = self.output.written(self.output.task.compared.columns)
        wanted = [*written] if by is None else [*written, by]
        for unit in self.files.get(file, ()):
            results = dict(self.output.numbered_results(unit, wanted))
            for number in range(unit.first_row, unit.first_row + unit.num_rows):
                row = results.get(number)
                yield SideRow(
                    path=unit.relative_path,
                    number=number,
                    result=None if row is None else self.output.result_of(row, written),
                    carried={} if row is None or by is None or by not in row else {by: row[by]},
                )

    def said(self, row: JsonRow) -> Said:
        """A result as what is compared."""
        return self.output.task.compared.said_in(row)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """Both of them."""

    a: Side
    b: Side

    @classmethod
    def open(cls, a: OutputSpec, b: OutputSpec) -> Self:
        """Raises:
        UsageError: there is no run, it has not come to its end, or the two are of other kinds of tasks.
        DamageError: what a folder says of its run is not what was written.
        OutputError: a folder cannot be read.
        """
        outputs = [RunOutput.open(spec, input_options={}) for spec in (a, b)]
        for output in outputs:
            _check_complete(output)
        _check_tasks(*outputs)
        units = [list(planned_units(output.store, output.record)) for output in outputs]
        by_path = any(map(_is_ambiguous, units))
        first, second = (
            Side.of(output, planned, by_path=by_path) for output, planned in zip(outputs, units, strict=True)
        )
        return cls(a=first, b=second)

    def parts(self) -> "dict[str, Sides]":
        """Both runs of each of several tasks, by name; of one task these, without a name."""
        a, b = self.a.output.parts(), self.b.output.parts()
        return {name: Sides(a=replace(self.a, output=a[name]), b=replace(self.b, output=b[name])) for name in a}

    def check_files(self) -> None:
        """Raises:
        UsageError: the runs have no file in common, or one that both have has another content.
        """
        common = [name for name in self.a.files if name in self.b.files]
        if not common:
            a, b = (next(iter(side.files)) for side in (self.a, self.b))
            raise UsageError(
                f"{self.a.name} and {self.b.name} have other inputs: no file in common, {a} is the first of one and {b} of the other; {BY}"
            )
        for name in common:
            first, second = self.a.files[name][0], self.b.files[name][0]
            if _are_others(first, second):
                raise UsageError(
                    f"{self.a.name} and {self.b.name} have other inputs: {name} had {first.source_size:,} bytes in one and "
                    f"{second.source_size:,} in the other, with another content; {BY}"
                )


def _check_complete(output: RunOutput) -> None:
    done, planned = len(output.receipts({}).units), output.record.plan.num_units
    if done < planned:
        raise UsageError(
            f"{output.store.location} is not complete: {done:,} of {planned:,} units are committed; run its job to the end"
        )


def _check_tasks(a: RunOutput, b: RunOutput) -> None:
    first, second = (
        ", ".join(
            f"{name}: {part.task.kind} ({part.task.compared.what})".removeprefix(": ")
            for name, part in sorted(output.parts().items())
        )
        for output in (a, b)
    )
    if first != second:
        raise UsageError(
            f"{a.store.location} is a run of {first} and {b.store.location} one of {second}; give two runs of one kind of task"
        )


def _is_ambiguous(units: Sequence[Unit]) -> bool:
    """Whether two files of a run have one path below the input's root."""
    names = {unit.path: unit.relative_path for unit in units}
    return len(set(names.values())) < len(names)


def _are_others(first: Unit, second: Unit) -> bool:
    """Whether two files of one name are known to be two: by size, by digest, or by a store's tag of one URL."""
    if first.source_size != second.source_size:
        return True
    if first.source_digest and second.source_digest:
        return first.source_digest != second.source_digest
    return is_remote(first.path) and first.path == second.path and first.source_tag != second.source_tag
