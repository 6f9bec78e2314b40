"""The exception tree of `pipelines`: the four kinds of failure of a run, and what stops one before it starts.

An error caused by a key of the spec or a file of the input carries it, so that no caller has to
parse the text.

PipelineError
├── RowError              this row: a dead letter, the others go on
├── SourceError           a unit cannot be read: retried, then listed
│   └── LastingSourceError  trying again would find the same: listed at once
│       └── SourceChangedError  its file is no longer the one that was planned
├── FleetError            an engine died: its units are tried again on a fresh one
├── OutputError           results cannot be written: the run stops
│   └── DamageError         what the output folder says of its run is not what was written
├── PlanError             the inputs cannot be planned: wrong path, unknown format, missing column
├── TaskError             the task does not fit the model, or contradicts itself: found before anything starts
├── OverrunsError         rows of a unit keep going over the limits of preparing one; on unit after unit: the run stops
├── InternalError         our own code failed on unit after unit: the run stops
├── ClusterError          there is no such Ray cluster, it is too small, or this machine has no place for one
├── ClusterLostError      the Ray cluster is gone, or a part of it that a run cannot do without
├── GraphError            Ray gave up the run's graph: a worker of ours raised what it should not, or the cluster is gone
├── SelectionError        a condition on dead letters is none, or cannot be told of one
├── FingerprintError      the output folder belongs to a different run
└── LeaseError            another run holds, or took over, the output folder
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any


class PipelineError(Exception):
    """Base of everything `pipelines` raises on purpose."""


class RowError(PipelineError):
    """One row cannot be processed. `kind` is a short stable word for reports (`too_long`), the text says what to do. `answer` is
    the answer of the HTTP API that says so, as JSON, if it was that; `tasks` are the names of those that cannot process it, of
    several."""

    def __init__(
        self, kind: str, message: str, answer: Mapping[str, Any] | None = None, tasks: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.answer = answer
        self.tasks = tuple(tasks)

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str, Mapping[str, Any] | None, Sequence[str]]]:
        return RowError, (self.kind, self.message, self.answer, self.tasks)


class SourceError(PipelineError):
    """A source file cannot be read."""


class LastingSourceError(SourceError):
    """A source file cannot be read, and reading it again would not help: its content is damaged, or is not what its name says."""


class SourceChangedError(LastingSourceError):
    """A source file is no longer the file that was planned."""


class FleetError(PipelineError):
    """Engines keep dying; the text carries the last cause."""


class OutputError(PipelineError):
    """The output folder cannot be written: disk full, access denied."""


class DamageError(OutputError):
    """A file of the ledger is not what was written; the text says which, and what to do."""


class PlanError(PipelineError):
    """The inputs cannot be planned.

    `place` is the key in the spec that is wrong (`output.path`), `path` the file or the entry of
    `input.paths` that is; each is None if that is not known, or no single one is at fault.
    `missing_columns` are those that the input lacks.
    """

    def __init__(
        self,
        message: str,
        *,
        place: str | None = None,
        path: str | None = None,
        missing_columns: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.place, self.path, self.missing_columns = place, path, tuple(missing_columns)

    def __reduce__(self) -> tuple[Any, ...]:
        placed = partial(PlanError, place=self.place, path=self.path, missing_columns=self.missing_columns)
        return placed, self.args


@contextmanager
def errors_of_file(path: str) -> Iterator[None]:
    """A `PlanError` that leaves the context without a file of its own is about the one at `path`."""
    try:
        yield
    except PlanError as error:
        error.path = error.path or path
        raise


class TaskError(PipelineError):
    """The task cannot be run on this model. `place` is the key in the spec (`task.window`); the text starts with it."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message

    def __reduce__(self) -> tuple[type["TaskError"], tuple[str, str]]:
        return TaskError, (self.place, self.message)


class OverrunsError(PipelineError):
    """Preparing rows keeps taking more time or memory than it may, or ending its process; the text says on which, and what to do."""


class InternalError(PipelineError):
    """Our own code fails on unit after unit; the text says where, and on which row."""


class ClusterError(PipelineError):
    """The Ray cluster cannot be reached, is too small for the engines asked for, or cannot be started on this machine."""


class ClusterLostError(PipelineError):
    """The Ray cluster is no longer there; the text says which part of it."""


class GraphError(PipelineError):
    """Ray gave up the run's graph; the text carries the innermost cause."""


class FingerprintError(PipelineError):
    """The output folder holds a run of something else; the text says what differs."""


class SelectionError(PipelineError):
    """A condition on dead letters is no expression over what they have, or cannot be told of one
    of them."""


class LeaseError(PipelineError):
    """Another run owns the output folder."""
