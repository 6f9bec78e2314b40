"""How a spec writes a generation."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipelines.task_base.task import Task
from pipelines.task_base.yaml import TaskYaml, Text, wrong
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.messages_yaml import MessageYaml
from pipelines.tasks.sampling_yaml import CONSTRAINED, SamplingYaml


class GenerateYaml(TaskYaml):
    """`{kind: generate}`."""

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
        if not given:
            raise wrong("kind", "generate needs exactly one of prompt, messages and prompt_token_ids; none is given")
        if len(given) > 1:
            raise wrong(
                given[1], f"stands beside {given[0]}; give exactly one of prompt, messages and prompt_token_ids"
            )
        if self.chat_template_kwargs and self.messages is None:
            raise wrong(
                "chat_template_kwargs", "only goes with messages: a prompt is not put through the chat template"
            )
        return self

    def to_task(self) -> GenerateTask:
        messages = None if self.messages is None else tuple(message.model_dump() for message in self.messages)
        return GenerateTask(
            prompt=self.prompt,
            messages=messages,
            prompt_token_ids=self.prompt_token_ids,
            chat_template_kwargs=self.chat_template_kwargs,
            sampling=self.sampling.to_params(),
            allow_special_tokens=self.allow_special_tokens,
            strip=self.strip,
        )

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        del values
        return GenerateTask
