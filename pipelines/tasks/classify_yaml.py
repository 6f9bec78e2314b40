"""How a spec writes a classification, with a head or with labels."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from models.tasks.calibration import Calibration
from models.tasks.examples import MAX_EXAMPLES, Selection
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import Count, TaskYaml, Text, wrong
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels.examples_yaml import fault_of, read_examples
from pipelines.tasks.labels.keys import DEFAULT_MAX_EXAMPLES
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.messages_yaml import MessageYaml, check_one_prompt, check_variables, plain_messages
from pipelines.tasks.sampling_yaml import CONSTRAINED
from pipelines.tasks.windows_yaml import Overlap, check_stride

_OF_LABELS: Final = (
    "question", "prompt", "messages", "label_texts", "label_stop", "examples", "calibrate", "label_mass",
)  # fmt: skip
_OF_THE_TEXT: Final = ("question", "windows")
_HEAD_KEYS: Final = frozenset({"text", "windows", "window", "stride", "allow_special_tokens"})


class ClassifyYaml(TaskYaml):
    """`{kind: classify}`."""

    later: ClassVar[Mapping[str, str]] = CONSTRAINED

    kind: Literal["classify"] = Field(description="classify")
    text: Text | None = Field(None, description='a template over the row\'s columns, such as "{{ body }}"')
    question: Text | None = Field(
        None, description="a template: the question asked of every text (a causal model with labels)"
    )
    prompt: Text | None = Field(
        None, description='a template behind which a label stands, such as "Text: {{ body }}\\nTopic: " (with labels)'
    )
    messages: Annotated[list[MessageYaml], Field(min_length=1)] | None = Field(
        None, description="a list of messages to which a label is the answer, each {role: ..., content: template}"
    )
    chat_template_kwargs: dict[str, Any] = Field({}, description="a mapping handed to the chat template")
    labels: list[str] | dict[str, str] | None = Field(
        None, description="a list of at least two different labels, or a mapping of each to its description"
    )
    label_texts: dict[str, Text] = Field({}, description="a mapping of labels to what is scored in their place")
    label_stop: bool | None = Field(None, description="true, false, or null: where one label begins another")
    examples: list[dict[str, str]] | Text | None = Field(
        None, description="a list of {text: ..., label: ...}, or a file of them as JSON lines"
    )
    select: Selection = Field("first", description="first or similar: which examples a row has")
    max_examples: Annotated[int, Field(ge=1, le=MAX_EXAMPLES)] = Field(
        DEFAULT_MAX_EXAMPLES, description=f"a whole number from 1 to {MAX_EXAMPLES}"
    )
    calibrate: Calibration = Field("none", description="none, prior or batch")
    label_mass: bool = Field(False, description="true or false: a column with the probability of all labels together")
    windows: Literal["mean", "max"] | None = Field(None, description="mean, max or null")
    window: Count | None = Field(None, description="a whole number of tokens, at least 1")
    stride: Overlap | None = Field(None, description="a whole number of tokens, 0 or more and below window")
    allow_special_tokens: bool = Field(False, description="true or false")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | dict[str, str] | None) -> list[str] | dict[str, str] | None:
        if labels is None:
            return None
        if len(labels) < 2:
            raise ValueError(f"has {len(labels)} label(s); it must be a list of at least two")
        named = list(labels)
        for index, label in enumerate(named):
            if not label.strip():
                raise ValueError(f"label number {index + 1} is empty; every label must be text")
            if label in named[:index]:
                raise ValueError(f"names {label!r} twice; every label must be different")
        for label, description in labels.items() if isinstance(labels, dict) else ():
            if not description.strip():
                raise ValueError(f"has no description of {label!r}; describe every label, or give a list of labels")
        return labels

    @field_validator("examples")
    @classmethod
    def _read(cls, examples: list[dict[str, str]] | str | None) -> list[dict[str, str]] | None:
        return [dict(each) for each in read_examples(examples)] if isinstance(examples, str) else examples

    @model_validator(mode="after")
    def _belongs_together(self) -> "ClassifyYaml":
        if self.labels is None:
            self._check_head()
        self._check_prompt()
        for key in ("window", "stride"):
            if self.windows is None and getattr(self, key) is not None:
                raise wrong(key, "only goes with windows: mean or windows: max")
        check_stride(self.window, self.stride)
        self._check_labels()
        return self

    def _check_head(self) -> None:
        for key in _OF_LABELS:
            if key in self.model_fields_set and getattr(self, key) is not None:
                raise wrong(key, "goes with labels, which are missing: a classification head is not asked anything")

    def _check_prompt(self) -> None:
        """One way of saying what is asked, and nothing that goes with another."""
        forms = ("text", "prompt", "messages")
        given = [form for form in forms if getattr(self, form) is not None]
        check_one_prompt("classify", forms, given)
        if self.text is None:
            for key in _OF_THE_TEXT:
                if getattr(self, key) is not None:
                    raise wrong(key, f"goes with text; write what is asked into {given[0]}")
            if isinstance(self.labels, dict):
                raise wrong("labels", f"has descriptions, which go with text; write them into {given[0]}")
        check_variables(self.chat_template_kwargs, has_messages=self.messages is not None)

    def _check_labels(self) -> None:
        labels = list(self.labels or ())
        for label in self.label_texts:
            if label not in labels:
                raise wrong("label_texts", f"has {label!r}, which is none of labels: {', '.join(labels)}")
        if self.examples is None:
            for key in ("select", "max_examples"):
                if key in self.model_fields_set:
                    raise wrong(key, "goes with examples, which are missing")
            return
        assert not isinstance(self.examples, str), "a file of examples is read"
        fault = fault_of(self.examples, labels, needs_text=self.text is not None)
        if fault is not None:
            number, text = fault
            raise wrong("examples", text if number is None else f"number {number + 1} {text}")

    def to_task(self) -> ClassifyTask | LabelsTask:
        values = self.model_dump(exclude={"kind", "labels", "messages", "examples"})
        assert not isinstance(self.examples, str), "a file of examples is read"
        if self.labels is None:
            return ClassifyTask(**{name: value for name, value in values.items() if name in _HEAD_KEYS})
        return LabelsTask(
            **values,
            labels=tuple(self.labels),
            descriptions=self.labels if isinstance(self.labels, dict) else {},
            messages=plain_messages(self.messages),
            examples=tuple(self.examples or ()),
        )

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        return ClassifyTask if values.get("labels") is None else LabelsTask
