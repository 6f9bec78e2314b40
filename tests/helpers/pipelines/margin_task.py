"""A kind of task that `tests/pipelines/runs/test_new_task_kind.py` brings. A module that imports little, as those of the other kinds do:
every process of a run that prepares or finishes rows imports it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from models.text.tokenizer import Tokenizer
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, RowEncoder
from pipelines.task_base.task import Counted, Task
from pipelines.task_base.yaml import TaskYaml, Text
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, check_head

SURE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginTask(Task):
    """How far a head's likeliest class is ahead of the next."""

    kind: ClassVar = "margin"
    template_keys: ClassVar = ("text",)
    unit_rows: ClassVar = 8
    counted: ClassVar = Counted(
        title="Sureness",
        columns=("margin",),
        labels_in=lambda row: [("sure" if row["margin"] > SURE else "unsure", row["margin"])],
    )

    text: str

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        check_head(facts, "sequence-classification", "task.kind", "a margin")
        return WholeTexts(self.text, tokenizer)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        return [pa.field("margin", pa.float32())]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        powers = np.exp(np.stack(rows.logits).astype(np.float64))
        probabilities = np.sort(powers / powers.sum(axis=-1, keepdims=True))  # [R, C]
        return [pa.array(probabilities[:, -1] - probabilities[:, -2], pa.float32())]


class WholeTexts(TemplateEncoder):
    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self._encoding = TextEncoding(
            render=self.template(text, "task.text").render,
            encode=tokenizer.encode_batch,
            check=lambda _, ids: EncodedRow.of_tokens(ids),
            num_chars=len,
        )

    def encode_rows(self, rows: Any, pace: Pace) -> Any:
        return self._encoding.of_rows(rows, pace)


class MarginYaml(TaskYaml):
    kind: Literal["margin"] = Field(description="margin")
    text: Text = Field(description="a template over the row's columns")

    def to_task(self) -> MarginTask:
        return MarginTask(text=self.text)

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        return MarginTask
