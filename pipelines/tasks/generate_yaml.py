"""How a spec writes a generation."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.task_base.change import Change, by_defaults
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import TaskYaml, Text
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.messages_yaml import MessageYaml, check_one_prompt, check_variables, plain_messages
from pipelines.tasks.sampling_yaml import CONSTRAINED, SamplingYaml


class GenerateYaml(TaskYaml):
    """`{kind: generate}`."""

    changeable: ClassVar[Mapping[str, Change]] = {"prompt": by_defaults}
    later: ClassVar[Mapping[str, str]] = CONSTRAINED

    kind: Literal["generate"] = Field(description="generate")
    prompt: Text | None = Field(None, description='a template over the row\'s columns, such as "Summarise: {{ body }}"')
    messages: Annotated[list[MessageYaml], Field(min_length=1)] | None = Field(
        None, description="a list of messages, each {role: ..., content: template}"
    )
    prompt_token_ids: Text | None = Field(None, description="the name of a column that holds lists of token ids")
    chat_template_kwargs: dict[str, Any] = Field({}, description="a mapping handed to the chat template")
    sampling: SamplingYaml = Field(SamplingYaml(), description="a mapping of sampling keys")
    allow_special_tokens: bool = Field(False, description="true or false")
    strip: bool = Field(False, description="true or false: whether white space around a text is left out")

    @model_validator(mode="after")
    def _one_prompt(self) -> "GenerateYaml":
        forms = ("prompt", "messages", "prompt_token_ids")
        given = [form for form in forms if getattr(self, form) is not None]
        check_one_prompt("generate", forms, given)
        check_variables(self.chat_template_kwargs, has_messages=self.messages is not None)
        return self

    def to_task(self) -> GenerateTask:
        return GenerateTask(
            prompt=self.prompt,
            messages=plain_messages(self.messages),
            prompt_token_ids=self.prompt_token_ids,
            chat_template_kwargs=self.chat_template_kwargs,
            sampling=self.sampling.to_params(),
            allow_special_tokens=self.allow_special_tokens,
            strip=self.strip,
        )

    @classmethod
    def keys_of(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        keys = super().keys_of(recorded)
        return keys | {"sampling": {key: value for key, value in keys["sampling"].items() if value is not None}}

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        del values
        return GenerateTask
