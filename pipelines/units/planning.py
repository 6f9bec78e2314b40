"""The planning pass: from the job's input to numbered units and one Arrow schema.

Usage:

    files = list_sources(job.input)
    plan = plan_units(files, job.input, Columns(carried=job.input.columns, required=...), unit_rows=unit_rows_of(job),
                      limit=job.limit, map_tasks=map_tasks, sink=writer.write)

`map_tasks(task, items)` runs `task` (picklable) on each item somewhere and yields the results in the order of the items. It takes
items as it needs them and keeps a bounded number of results; `map_here` does so in this process. `sink` receives the units in
batches. So the driver holds the list of files and a few results at a time, however large the corpus is.

Units never span two files, or two stretches that a format plans apart. A column named by the job has to be in every file that has a
schema, and somewhere in a corpus whose values tell the types. With a `limit` only the first rows are planned, and only what had to
be looked at for that counts for the schema.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pyarrow as pa

from pipelines.errors import PlanError
from pipelines.formats.schema import Columns, parse_types
from pipelines.input_formats.input_format import Stretch, UnitsWanted
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec, Job
from pipelines.units.listing import PassedOver, SourceFile
from pipelines.units.numbering import Numbering, Sink
from pipelines.units.scanning import FileStretch, Scanner
from pipelines.units.schemas import Schemas

_MAX_PARTS_PER_TASK = 64
_MAX_TASK_BYTES = 32 << 20
STRETCH_BYTES = 32 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")


class MapTasks(Protocol):
    """Runs a task on each item and yields the results in order."""

    def __call__(self, task: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]: ...


def map_here(task: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
    """`MapTasks` in this process, one after the other."""
    return map(task, items)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What was planned: the run's schema, the most rows of a unit, how much there is, and the files passed over for their endings.
    `num_bytes` counts units' bytes in memory or decompressed."""

    schema: pa.Schema
    unit_rows: int
    num_files: int
    num_units: int
    num_rows: int
    num_bytes: int
    passed_over: PassedOver = field(default_factory=PassedOver)


def unit_rows_of(job: Job) -> int:
    """The most rows per unit of this job; units of a run that settles their size itself may have
    fewer (`pipelines.units.unit_rows`)."""
    return min(task.unit_rows for task in job.task.parts().values()) if job.unit_rows is None else job.unit_rows


def plan_units(
    files: Sequence[SourceFile],
    spec: InputSpec,
    columns: Columns,
    *,
    unit_rows: int,
    sink: Sink,
    limit: int | None = None,
    map_tasks: MapTasks = map_here,
) -> Plan:
    """Plans all units of `files`, or those of the first `limit` rows.

    Raises:
        PlanError: a file cannot be read, a column is missing, types conflict, or there are no rows at all.
    """
    declared = parse_types(spec.schema or {})
    wanted = UnitsWanted(storage=Storage.of(spec), columns=columns, unit_rows=unit_rows, declared=frozenset(declared))
    schemas = Schemas(columns=columns, declared=declared)
    numbering = Numbering(files=files, sink=sink, limit=limit)
    for findings in map_tasks(Scanner(wanted=wanted), _tasks(files)):
        for finding in findings:
            path = files[finding.file].path
            if finding.problem is not None:
                raise PlanError(finding.problem, path=path)
            schemas.add(finding.units, path)
            numbering.add(finding)
            if numbering.is_full:
                break
        if numbering.is_full:
            break
    numbering.flush()
    if numbering.num_rows == 0:
        raise PlanError(_no_rows(files))
    return Plan(
        schema=schemas.settle(),
        unit_rows=unit_rows,
        num_files=len(files),
        num_units=numbering.num_units,
        num_rows=numbering.num_rows,
        num_bytes=numbering.num_bytes,
    )


def _no_rows(files: Sequence[SourceFile]) -> str:
    which = files[0].path if len(files) == 1 else f"all {len(files):,} files, of which the first is {files[0].path},"
    what = "holds" if len(files) == 1 else "hold"
    return f"the input has no rows: {which} {what} none; give files that do"


def _tasks(files: Sequence[SourceFile]) -> Iterator[tuple[FileStretch, ...]]:
    """Parts in the order of the files, small ones together."""
    task: list[FileStretch] = []
    weight = 0
    for index, source in enumerate(files):
        format = FORMATS[source.format]
        for start, end in format.stretches(source.path, source.size, STRETCH_BYTES):
            size = end - start if format.scan_bytes is None else format.scan_bytes
            if task and (weight + size > _MAX_TASK_BYTES or len(task) == _MAX_PARTS_PER_TASK):
                yield tuple(task)
                task, weight = [], 0
            stretch = Stretch(path=source.path, size=source.size, start=start, end=end)
            task.append(FileStretch(file=index, format=source.format, stretch=stretch))
            weight += size
    if task:
        yield tuple(task)
