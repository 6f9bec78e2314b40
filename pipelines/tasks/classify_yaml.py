"""How a spec writes a classification, with a head or with labels."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from pipelines.task_base.change import Change, by_defaults, from_unset
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import TASK_NAME, Count, TaskYaml, Text, wrong
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels.labels_yaml import AskedLabelsYaml, QuestionYaml, label_keys_of
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.messages_yaml import MessageYaml, check_one_prompt, check_variables, plain_messages
from pipelines.tasks.sampling_yaml import CONSTRAINED
from pipelines.tasks.several.task import SeveralTask
from pipelines.tasks.windows_yaml import Overlap, check_stride

_OF_LABELS: Final = (
    "question", "prompt", "messages", "label_texts", "label_stop", "examples", "calibrate", "label_mass",
)  # fmt: skip
_OF_THE_TEXT: Final = ("question", "windows")
_OF_ALL: Final = frozenset({"text", "windows", "window", "stride", "allow_special_tokens"})
"""Keys that have their meaning for a head, for labels, and for every question."""

QuestionName = Annotated[str, Field(pattern=TASK_NAME)]


class ClassifyYaml(AskedLabelsYaml, TaskYaml):
    """`{kind: classify}`."""

    changeable: ClassVar[Mapping[str, Change]] = {
        **dict.fromkeys(("text", "question", "prompt"), by_defaults),
        **dict.fromkeys(("windows", "window", "stride"), from_unset),
    }
    later: ClassVar[Mapping[str, str]] = CONSTRAINED

    kind: Literal["classify"] = Field(description="classify")
    text: Text | None = Field(None, description='a template over the row\'s columns, such as "{{ body }}"')
    prompt: Text | None = Field(
        None, description='a template behind which a label stands, such as "Text: {{ body }}\\nTopic: " (with labels)'
    )
    messages: Annotated[list[MessageYaml], Field(min_length=1)] | None = Field(
        None, description="a list of messages to which a label is the answer, each {role: ..., content: template}"
    )
    chat_template_kwargs: dict[str, Any] = Field({}, description="a mapping handed to the chat template")
    questions: dict[QuestionName, QuestionYaml] = Field(
        {}, description="a mapping of at least two names to a question each, with labels, over the one text"
    )
    windows: Literal["mean", "max"] | None = Field(None, description="mean, max or null")
    window: Count | None = Field(None, description="a whole number of tokens, at least 1")
    stride: Overlap | None = Field(None, description="a whole number of tokens, 0 or more and below window")
    allow_special_tokens: bool = Field(False, description="true or false")

    @model_validator(mode="after")
    def _belongs_together(self) -> "ClassifyYaml":
        if self.questions:
            self._check_questions()
        elif self.labels is None:
            self._check_head()
        self._check_prompt()
        for key in ("window", "stride"):
            if self.windows is None and getattr(self, key) is not None:
                raise wrong(key, "only goes with windows: mean or windows: max")
        check_stride(self.window, self.stride)
        self.check_labels(needs_text=self.text is not None)
        return self

    def _check_questions(self) -> None:
        """Each question says what is asked; here is what is asked about."""
        if len(self.questions) < 2:
            raise wrong("questions", "has one question; write at least two, or question and labels without a name")
        for key in (*AskedLabelsYaml.model_fields, "prompt", "messages"):
            if key in self.model_fields_set and getattr(self, key) is not None:
                raise wrong(key, "stands beside questions, each of which has its own; all are asked of the one text")

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

    def to_task(self) -> ClassifyTask | LabelsTask | SeveralTask:
        values = {name: getattr(self, name) for name in _OF_ALL}
        if self.questions:
            tasks = {name: LabelsTask(**values, **question.label_keys()) for name, question in self.questions.items()}
            return SeveralTask(tasks=tasks, at="task.questions", shared=_OF_ALL)
        if self.labels is None:
            return ClassifyTask(**values)
        return LabelsTask(
            **values,
            **self.label_keys(),
            prompt=self.prompt,
            messages=plain_messages(self.messages),
            chat_template_kwargs=self.chat_template_kwargs,
        )

    @classmethod
    def keys_of(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        keys = super().keys_of(recorded)
        return keys if recorded.get("labels") is None else label_keys_of(keys)

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        return ClassifyTask if values.get("labels") is None else LabelsTask
