"""The `task` of a job spec: generate, classify or extract, with its sampling keys.

A key whose feature comes later is refused by name, with a sentence.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from jobs.spec.fields import MAX_COUNT, Count, Strict, Text, wrong
from models.engine.scheduling.request import SamplingParams
from models.errors import RequestError
from pipelines.job import ClassifyTask, ExtractTask, GenerateTask

Overlap = Annotated[int, Field(ge=0, le=MAX_COUNT)]

_CONSTRAINED = "is not available yet: answers bound to a JSON schema, a regex or a choice come in a later version"
_PENALTY = "is not available yet: penalties and logit biases come in a later version"


class SamplingYaml(Strict):
    """`task.sampling`; ranges are those of `SamplingParams`."""

    later: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"), _PENALTY),
        "n": "is not available yet: a row has one answer",
        "prompt_logprobs": "is not available in jobs: no result column holds the log probabilities of a prompt",
        "best_of": "is not available yet: a row has one answer",
        **dict.fromkeys(("json_schema", "regex", "choice"), _CONSTRAINED),
    }

    max_tokens: int = Field(16, description="a whole number, at least 1")
    min_tokens: int = Field(0, description="a whole number from 0 to max_tokens")
    temperature: float = Field(0.0, description="a number from 0 (greedy) to 100")
    top_k: Annotated[int, Field(le=MAX_COUNT)] = Field(0, description="a whole number, 0 (off) or more")
    top_p: float = Field(1.0, description="a number over 0 and at most 1 (off)")
    min_p: float = Field(0.0, description="a number from 0 (off) to 1")
    stop: list[str] = Field([], description="a list of strings, none of them empty")
    stop_token_ids: list[Annotated[int, Field(ge=0, le=MAX_COUNT)]] = Field(
        [], description="a list of token ids, each 0 or more"
    )
    ignore_eos: bool = Field(False, description="true or false")
    seed: int | None = Field(
        None, description="a whole number from 0 to 2**63 - 1; default: made from the job's seed and the row"
    )
    logprobs: int | None = Field(None, description="a whole number from 0 to 100, or null")

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        given: dict[str, Any] = {"max_tokens": 2**31, name: tuple(value) if isinstance(value, list) else value}
        try:
            SamplingParams(**given)
        except RequestError as error:
            raise ValueError(str(error).removeprefix(f"sampling parameter {name} ")) from error
        return value

    @model_validator(mode="after")
    def _min_below_max(self) -> "SamplingYaml":
        if self.min_tokens > self.max_tokens:
            raise wrong(
                "min_tokens", f"was {self.min_tokens}; it must be from 0 to max_tokens, which is {self.max_tokens}"
            )
        return self

    def to_params(self) -> SamplingParams:
        """The same values as the engine takes them."""
        values: dict[str, Any] = self.model_dump()
        values.update(stop=tuple(self.stop), stop_token_ids=tuple(self.stop_token_ids))
        return SamplingParams(**values)


class PartYaml(Strict):
    """One part of a message's content."""

    type: Literal["text"] = Field(description="text")
    text: str = Field(description="a template over the row's columns")


class MessageYaml(Strict):
    """One message of a chat."""

    role: Text = Field(description="a role the checkpoint's chat template knows: system, user, assistant")
    content: str | list[PartYaml] = Field(
        description="a template over the row's columns, or a list of {type: text, text: template}"
    )


class GenerateYaml(Strict):
    """`{kind: generate}`."""

    later: ClassVar[Mapping[str, str]] = dict.fromkeys(("json_schema", "regex", "choice"), _CONSTRAINED)

    kind: Literal["generate"] = Field(description="generate, classify or extract")
    prompt: Text | None = Field(None, description='a template over the row\'s columns, such as "Summarise: {{ body }}"')
    messages: Annotated[list[MessageYaml], Field(min_length=1)] | None = Field(
        None, description="a list of messages, each {role: ..., content: template}"
    )
    prompt_token_ids: Text | None = Field(None, description="the name of a column that holds lists of token ids")
    chat_template_kwargs: dict[str, Any] = Field({}, description="a mapping handed to the chat template")
    sampling: SamplingYaml = Field(SamplingYaml(), description="a mapping of sampling keys")
    allow_special_tokens: bool = Field(False, description="true or false")

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
        )


class ClassifyYaml(Strict):
    """`{kind: classify}`."""

    later: ClassVar[Mapping[str, str]] = dict.fromkeys(("json_schema", "regex", "choice"), _CONSTRAINED)

    kind: Literal["classify"] = Field(description="generate, classify or extract")
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
        _check_stride(self.window, self.stride)
        return self

    def to_task(self) -> ClassifyTask:
        return ClassifyTask(
            text=self.text,
            question=self.question,
            labels=None if self.labels is None else tuple(self.labels),
            windows=self.windows,
            window=self.window,
            stride=self.stride,
            allow_special_tokens=self.allow_special_tokens,
        )


class ExtractYaml(Strict):
    """`{kind: extract}`."""

    later: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("json_schema", "regex", "choice"), _CONSTRAINED),
        "prompt": "is not available yet in extract: it goes with json_schema, which comes in a later version; use text",
        "sampling": "is not available yet in extract: it goes with json_schema, which comes in a later version",
    }

    kind: Literal["extract"] = Field(description="generate, classify or extract")
    text: Text = Field(description='a template over the row\'s columns, such as "{{ body }}"')
    question: Text | None = Field(
        None, description="a template: the question to answer from the text (a question-answering head)"
    )
    window: Count | None = Field(None, description="a whole number of tokens, at least 1")
    stride: Overlap | None = Field(None, description="a whole number of tokens, 0 or more and below window")

    @model_validator(mode="after")
    def _overlap_fits(self) -> "ExtractYaml":
        _check_stride(self.window, self.stride)
        return self

    def to_task(self) -> ExtractTask:
        return ExtractTask(text=self.text, question=self.question, window=self.window, stride=self.stride)


def _check_stride(window: int | None, stride: int | None) -> None:
    if window is not None and stride is not None and stride >= window:
        raise wrong(
            "stride", f"was {stride}; it is the overlap of two windows and must be below window, which is {window}"
        )
