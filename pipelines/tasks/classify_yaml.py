"""How a spec writes a classification, with a head or with labels."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.task_base.task import Task
from pipelines.task_base.yaml import Count, TaskYaml, Text, wrong
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels import LabelsTask
from pipelines.tasks.sampling_yaml import CONSTRAINED
from pipelines.tasks.windows_yaml import Overlap, check_stride


class ClassifyYaml(TaskYaml):
    """`{kind: classify}`."""

    later: ClassVar[Mapping[str, str]] = CONSTRAINED

    kind: Literal["classify"] = Field(description="classify")
    text: Text = Field(description='a template over the row\'s columns, such as "{{ body }}"')
    question: Text | None = Field(
        None, description="a template: the question asked of every text (a causal model with labels)"
    )
    labels: list[str] | None = Field(None, description="a list of at least two different labels (a causal model)")
    windows: Literal["mean", "max"] | None = Field(None, description="mean, max or null")
    window: Count | None = Field(None, description="a whole number of tokens, at least 1")
    stride: Overlap | None = Field(None, description="a whole number of tokens, 0 or more and below window")
    allow_special_tokens: bool = Field(False, description="true or false")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | None) -> list[str] | None:
        if labels is None:
            return None
        if len(labels) < 2:
            raise ValueError(f"has {len(labels)} label(s); it must be a list of at least two")
        for index, label in enumerate(labels):
            if not label.strip():
                raise ValueError(f"label number {index + 1} is empty; every label must be text")
            if label in labels[:index]:
                raise ValueError(f"names {label!r} twice; every label must be different")
        return labels

    @model_validator(mode="after")
    def _belongs_together(self) -> "ClassifyYaml":
        if self.question is not None and self.labels is None:
            raise wrong("question", "goes with labels, which are missing: a classification head is not asked anything")
        for key in ("window", "stride"):
            if self.windows is None and getattr(self, key) is not None:
                raise wrong(key, "only goes with windows: mean or windows: max")
        check_stride(self.window, self.stride)
        return self

    def to_task(self) -> ClassifyTask | LabelsTask:
        if self.labels is None:
            return ClassifyTask(**self.model_dump(exclude={"kind", "labels", "question"}))
        return LabelsTask(**self.model_dump(exclude={"kind", "labels"}), labels=tuple(self.labels))

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        return ClassifyTask if values.get("labels") is None else LabelsTask
