"""How a spec writes an extraction, of spans or of an answer."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.task_base.change import Change, by_defaults
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import Count, TaskYaml, Text
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.sampling_yaml import CONSTRAINED
from pipelines.tasks.spans import SpansTask
from pipelines.tasks.windows_yaml import Overlap, check_stride


class ExtractYaml(TaskYaml):
    """`{kind: extract}`."""

    changeable: ClassVar[Mapping[str, Change]] = {"text": by_defaults, "question": by_defaults}
    later: ClassVar[Mapping[str, str]] = {
        **CONSTRAINED,
        "prompt": "is not available yet in extract: it goes with json_schema, which comes in a later version; use text",
        "sampling": "is not available yet in extract: it goes with json_schema, which comes in a later version",
    }

    kind: Literal["extract"] = Field(description="extract")
    text: Text = Field(description='a template over the row\'s columns, such as "{{ body }}"')
    question: Text | None = Field(
        None, description="a template: the question to answer from the text (a question-answering head)"
    )
    window: Count | None = Field(None, description="a whole number of tokens, at least 1")
    stride: Overlap | None = Field(None, description="a whole number of tokens, 0 or more and below window")

    @model_validator(mode="after")
    def _overlap_fits(self) -> "ExtractYaml":
        check_stride(self.window, self.stride)
        return self

    def to_task(self) -> SpansTask | AnswerTask:
        if self.question is None:
            return SpansTask(text=self.text, window=self.window, stride=self.stride)
        return AnswerTask(text=self.text, question=self.question, window=self.window, stride=self.stride)

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        return SpansTask if values.get("question") is None else AnswerTask
