"""Several tasks a row: a text -> the columns of each task, under its name.

    tasks: {team: {kind: classify, ...}, reply: {kind: generate, ...}}    team_label, team_score, ..., reply_text, reply_finish_reason

One model answers all of them, and what their prompts begin with in common is computed once: of those with labels in one
tree, of those that generate by the engine's cache of prefixes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.work import OnePassAnswer
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import RowEncoder
from pipelines.task_base.task import Task, TrialSize
from pipelines.tasks.several.encoder import SeveralEncoder
from pipelines.tasks.several.partial import DROP, Partial, row_error

Result = TypeVar("Result")

ERRORS: Final = pa.field("errors", pa.map_(pa.string(), pa.string()))
"""With `partial: keep`: why a task of the row has no answer, by its name; null where all have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralTask(Task):
    """The tasks in `tasks`, by name. `partial` says what becomes of a row that some of them fail on.

    `at` is where they stand in a spec; keys in `shared` stand once, in `task`, for all of them.
    """

    kind: ClassVar = "several"

    tasks: Mapping[str, Task]
    partial: Partial = DROP
    at: str = "tasks"
    shared: frozenset[str] = frozenset()

    @property
    def uses_chat_template(self) -> bool:
        return any(task.uses_chat_template for task in self.tasks.values())

    def why_no_confidence(self) -> str | None:
        return "tasks have no one score; a cascade is for a row of one task"

    def why_not_alone(self) -> str | None:
        reasons = ((name, task.why_not_alone()) for name, task in self.tasks.items())
        return "; ".join(f"task {name}: {reason}" for name, reason in reasons if reason is not None) or None

    def parts(self) -> Mapping[str, Task]:
        return self.tasks

    def templates(self) -> Iterator[tuple[str, str]]:
        found = (
            (self._place(name, place), text) for name, task in self.tasks.items() for place, text in task.templates()
        )
        yield from dict.fromkeys(found)

    def with_templates(self, change: Callable[[str], str]) -> "SeveralTask":
        return replace(self, tasks={name: task.with_templates(change) for name, task in self.tasks.items()})

    def columns_named(self) -> Iterator[tuple[str, str]]:
        for name, task in self.tasks.items():
            yield from ((self._place(name, place), column) for place, column in task.columns_named())

    def read_own(self, folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> object:
        return tuple(
            self._placed(name, partial(task.read_own, folder, config, tokenizer)) for name, task in self.tasks.items()
        )

    def own_files(self, folder: Path) -> Sequence[str]:
        return [*dict.fromkeys(file for task in self.tasks.values() for file in task.own_files(folder))]

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        encoders = {
            name: self._placed(name, partial(task.encoder, tokenizer, own))
            for (name, task), own in zip(self.tasks.items(), self._facts(facts), strict=True)
        }
        return SeveralEncoder(encoders, self.partial)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        fields = [
            field.with_name(f"{name}_{field.name}").with_nullable(True)
            for (name, task), own in zip(self.tasks.items(), self._facts(facts), strict=True)
            for field in (*task.fields(own), *_reason_fields(task))
        ]
        return [*fields, ERRORS] if self.partial == "keep" else fields

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        columns: list[pa.Array[Any]] = []
        for number, (task, own) in enumerate(zip(self.tasks.values(), self._facts(facts), strict=True)):
            answered = rows.of_task(number)
            is_bad = np.zeros(rows.num_rows, np.bool_)
            is_bad[[row for row, _ in answered.errors]] = True
            good = answered.without(is_bad)
            found = task.columns(own, good)
            if task.generates:
                found.append(task.finish_reasons(good))
            columns += (_in_place(column, is_bad) for column in found)
        return [*columns, self._errors(rows)] if self.partial == "keep" else columns

    def row_errors(self, rows: AnsweredRows) -> dict[int, RowError]:
        by_row: dict[int, dict[int, RowError]] = {}
        for (row, number), error in rows.errors.items():
            by_row.setdefault(row, {})[number] = error
        found = {row: row_error([*self.tasks], errors, self.partial) for row, errors in by_row.items()}
        return {row: error for row, error in found.items() if error is not None}

    @property
    def tried(self) -> TrialSize:
        each = [task.tried for task in self.tasks.values()]
        return TrialSize(num_asked=sum(one.num_asked for one in each), num_told=sum(one.num_told for one in each))

    def found_in(self, answers: Sequence[OnePassAnswer]) -> tuple[float, ...]:
        left = iter(answers)
        trying = [task for task in self.tasks.values() if task.tried.num_asked]
        found = (task.found_in(list(islice(left, task.tried.num_asked))) for task in trying)
        return tuple(chain.from_iterable(found))

    def with_found(self, numbers: Sequence[float]) -> "SeveralTask":
        left = iter(numbers)
        tasks = {
            name: task.with_found(list(islice(left, task.tried.num_told))) if task.tried.num_told else task
            for name, task in self.tasks.items()
        }
        return replace(self, tasks=tasks)

    def meaning_of_scores(self, facts: TaskFacts) -> str | None:
        return self._said(facts, lambda task, own: task.meaning_of_scores(own))

    def caution(self, facts: TaskFacts) -> str | None:
        return self._said(facts, lambda task, own: task.caution(own))

    def recorded(self) -> dict[str, Any]:
        tasks = {name: task.recorded() for name, task in self.tasks.items()}
        return {"kind": self.kind, "tasks": tasks, "partial": self.partial}

    def _facts(self, facts: TaskFacts) -> list[TaskFacts]:
        """Those of each task."""
        assert isinstance(facts.own, tuple), "what each task has read of the checkpoint"
        return [replace(facts, own=own) for own in facts.own]

    def _place(self, name: str, place: str) -> str:
        """Where a key of one task stands in the spec, from its place in a spec of that task alone."""
        first, _, key = place.partition(".")
        if first != "task" or key.partition(".")[0] in self.shared:
            return place
        return f"{self.at}.{name}.{key}"

    def _placed(self, name: str, call: Callable[[], Result]) -> Result:
        """What `call` returns for one task; its errors are of the places where that stands."""
        try:
            return call()
        except TaskError as error:
            raise TaskError(self._place(name, error.place), error.message) from error

    def _said(self, facts: TaskFacts, say: Callable[[Task, TaskFacts], str | None]) -> str | None:
        """What is said of each task, under its name; None where nothing is."""
        told = {
            name: text
            for (name, task), own in zip(self.tasks.items(), self._facts(facts), strict=True)
            if (text := say(task, own)) is not None
        }
        return "; ".join(f"{name}: {text}" for name, text in told.items()) or None

    def _errors(self, rows: AnsweredRows) -> "pa.Array[Any]":
        names = [*self.tasks]
        told: list[dict[str, str]] = [{} for _ in range(rows.num_rows)]
        for (row, number), error in rows.errors.items():
            told[row][names[number]] = f"{error.kind}: {error.message}"
        return pa.array([[*one.items()] if one else None for one in told], ERRORS.type)


def _reason_fields(task: Task) -> "list[pa.Field[Any]]":
    return [pa.field("finish_reason", pa.string())] if task.generates else []


def _in_place(column: "pa.Array[Any]", is_bad: npt.NDArray[np.bool_]) -> "pa.Array[Any]":
    """The values of good rows where those stand among all [N], null for the others."""
    if not is_bad.any():
        return column
    return column.take(pa.array(np.cumsum(~is_bad) - 1, mask=is_bad))
