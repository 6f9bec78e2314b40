"""What a run asks of its task, whatever kind it is. The kinds are classes of their own in `pipelines.tasks`.

A run, its plan, its report and its record know a task by these attributes alone: nothing outside `pipelines.tasks` asks which kind a
task is of.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pyarrow as pa

from actors.work import FloatArray, OnePassAnswer
from models.config.model_config import ModelConfig
from models.engine.scheduling.request import Output, SamplingParams
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.compared import Compared
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.judged import Judged
from pipelines.task_base.requests import RowEncoder
from pipelines.task_base.templated import templates_in, with_templates_in

ONE_PASS_UNIT_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """Tokens of prompts, those of them that were cached, and those generated."""

    prompt: int
    cached: int
    completion: int


def _none_known(row: Mapping[str, Any], class_names: Sequence[str]) -> Sequence[str]:
    del row, class_names
    return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """What a report counts of a task's results under the heading `title`: `labels_in` gives the labels of one row, with their scores
    where they have one, from those of `columns` that are there, by the task's own names. `known` gives all labels there are, from one
    row with its `known_columns` and the names of the checkpoint's classes, of which there may be none."""

    title: str
    columns: tuple[str, ...]
    labels_in: Callable[[Mapping[str, Any]], Iterable[tuple[str, float | None]]]
    known_columns: tuple[str, ...] = ()
    known: Callable[[Mapping[str, Any], Sequence[str]], Sequence[str]] = _none_known


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSize:
    """How many requests a task makes before all rows, and how many numbers it is told by the answers."""

    num_asked: int = 0
    num_told: int = 0


class Task(ABC):
    """What is asked of every row: a frozen dataclass with the task's own keys, and how its rows become requests, and answers columns.

    `kind` is its word in a spec and in a run's record. `template_keys` are the keys that hold a template over a row, or messages of
    templates. `generates` says whether the engine writes tokens, as `sampling` then says; other tasks are computed in one pass, but for
    one that `calls_api`: its rows are requests of the HTTP API. `unit_rows` is how many rows a unit has unless the spec says so. `counted`
    is for reports, None where there is nothing to count; `judged` says how results are held against a truth, None where they have no
    labels, and `compared` how two runs of the kind are. `uses_chat_template` says whether a row's text is put through the checkpoint's own.
    """

    __slots__ = ()

    kind: ClassVar[str]
    template_keys: ClassVar[tuple[str, ...]]
    generates: ClassVar[bool] = False
    calls_api: ClassVar[bool] = False
    unit_rows: ClassVar[int] = ONE_PASS_UNIT_ROWS
    counted: ClassVar[Counted | None] = None
    judged: ClassVar[Judged | None] = None
    compared: ClassVar[Compared]

    @property
    def sampling(self) -> SamplingParams | None:
        return None

    @property
    def uses_chat_template(self) -> bool:
        return False

    def parts(self) -> Mapping[str, "Task"]:
        """The tasks that it is made of, by name: this one alone, without a name, unless it is several."""
        return {"": self}

    def templates(self) -> Iterator[tuple[str, str]]:
        """The place of every template over a row in the spec, such as `task.text`, and the template."""
        for key in self.template_keys:
            yield from templates_in(getattr(self, key), f"task.{key}")

    def with_templates(self, change: Callable[[str], str]) -> "Task":
        """The same task with `change` of each of its templates in the place of that."""
        changed = {key: with_templates_in(getattr(self, key), change) for key in self.template_keys}
        found: Task = replace(cast("Any", self), **changed)
        return found

    def columns_named(self) -> Iterator[tuple[str, str]]:
        """The place in the spec, and the name, of every column that the input must have beside those that templates read."""
        return iter(())

    def read_own(self, folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> object:
        """What this kind of task has to know of a checkpoint beside the facts that all kinds share: a plain value, that travels with
        them as `TaskFacts.own`.

        Raises:
            TaskError: the checkpoint is none for this kind of task.
        """
        del folder, config, tokenizer
        return None

    def own_files(self, folder: Path) -> Sequence[str]:
        """Files of a checkpoint, by name, that the results of this kind of task depend on beside those that all kinds read."""
        del folder
        return ()

    @abstractmethod
    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        """The task over a checkpoint.

        Raises:
            TaskError: it cannot be run there.
        """

    @abstractmethod
    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        """The result columns, without the output's prefix. Columns that every task has come behind them (`pipelines.unit_steps.finish`)."""

    @abstractmethod
    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        """The answers as one array for each of `fields`; every answer is a good one."""

    def why_no_confidence(self) -> str | None:
        """Why it cannot be said how sure the model is of an answer, whatever the checkpoint; None if `confidences` can."""
        return f"task.kind {self.kind} has no score of an answer"

    def why_not_alone(self) -> str | None:
        """Why a row's answer depends on the rows beside it, so that it cannot be computed again
        without them; None if it does not."""
        return None

    def confidences(self, facts: TaskFacts, rows: AnsweredRows) -> FloatArray:
        """How sure the model is of the answer to each row, from 0 to 1 [num_rows] float32; every answer is a good one.

        Raises:
            TaskError: this checkpoint's answers have no confidence, which shows without any rows too.
        """
        raise NotImplementedError(f"{self.kind} has no confidences: {rows.num_rows} rows of a {facts.model.head} model")

    def row_errors(self, rows: AnsweredRows) -> dict[int, RowError]:
        """The errors of the rows that become dead letters, by row."""
        errors: dict[int, RowError] = {}
        for (row, _), error in rows.errors.items():
            errors.setdefault(row, error)
        return errors

    def finish_reasons(self, rows: AnsweredRows) -> "pa.Array[Any]":
        """Why each row's text ended; null for what is no text."""
        return pa.nulls(rows.num_rows, pa.string())

    def tokens(self, rows: AnsweredRows) -> TokenCounts:
        """The tokens of all answers, bad ones too."""
        return TokenCounts(
            prompt=int(rows.prompt_tokens.sum()),
            cached=sum(
                result.num_cached_tokens for result in rows.results if isinstance(result, Output | OnePassAnswer)
            ),
            completion=sum(len(result.token_ids) for result in rows.generated),
        )

    @property
    def tried(self) -> TrialSize:
        """What its encoder's `trial` asks, and `found_in` makes of the answers."""
        return TrialSize()

    def found_in(self, answers: Sequence[OnePassAnswer]) -> tuple[float, ...]:
        """What the answers to its encoder's `trial` tell the task, as numbers that a run's record keeps."""
        raise NotImplementedError(f"{self.kind} asks nothing before all rows: {len(answers)} answers")

    def with_found(self, numbers: Sequence[float]) -> "Task":
        """The task that knows what its trial has told."""
        raise NotImplementedError(f"{self.kind} asks nothing before all rows: {len(numbers)} numbers")

    def meaning_of_scores(self, facts: TaskFacts) -> str | None:
        """What the scores of the checkpoint's own classes will be, for people; None where there are none."""
        del facts
        return None

    def caution(self, facts: TaskFacts) -> str | None:
        """What somebody who has not looked at the checkpoint may take the results for by mistake; a run says it when it begins."""
        del facts
        return None

    def recorded(self) -> dict[str, Any]:
        """The values that tell this task from another, as a run's record keeps them."""
        return {"kind": self.kind, **asdict(cast("Any", self))}
