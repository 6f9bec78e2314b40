"""Bodies of chat and text completions, as OpenAI's API has them, and what all bodies share.

A request body is strict: a field that is not here is refused by its name, and so is a value of another type. Fields that OpenAI's
clients send though this service does not know what they ask for are here with the one value that asks for nothing. Fields after "ours"
are the engine's own (`models.SamplingParams`). Fields of rules over the next token, OpenAI's
penalties among them, are what the rules declare (`models.engine.rules.table`).
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from actors.http.bodies.rule_fields import field_of, given_of
from actors.http.bodies.types import (
    Body,
    Inputs,
    ModelName,
    NoList,
    NoMap,
    NoText,
    Text,
    TokenId,
    counted_items,
)
from models.engine.rules.table import PARAMETERS
from models.engine.scheduling.request import MAX_LOGPROBS

MAX_STOPS = 64
MAX_STOP_TOKEN_IDS = 1024
MAX_MESSAGES = 4096
MAX_PARTS = 1024
MAX_TEMPLATE_VARIABLES = 64
MAX_VARIABLE_NAME = 64


class ResponseBody(BaseModel):
    """A response body, or a part of one."""

    model_config = ConfigDict(frozen=True)


One = Annotated[int, Field(ge=1, le=1)]


class StreamOptions(Body):
    """`include_usage` asks for a last event with the usage."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(Body):
    """The format of plain text."""

    type: Literal["text"]


class PlainSamplingBody(Body):
    """What chat and text completions have in common, without the parameters of rules."""

    model: ModelName
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # ours
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS, fail_fast=True)] | None = None
    ignore_eos: bool | None = None
    # of these, only what asks for nothing
    user: str | None = None

    @property
    def of_rules(self) -> dict[str, Any]:
        """The parameters of rules that are given, by their names."""
        return given_of(self, [*PARAMETERS])


if TYPE_CHECKING:
    SamplingBody = PlainSamplingBody
else:
    SamplingBody = create_model(
        "SamplingBody",
        __base__=PlainSamplingBody,
        __doc__="What chat and text completions have in common.",
        **{name: field_of(parameter) for name, parameter in PARAMETERS.items()},
    )


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn of a conversation; texts in parts are joined where the model's chat template takes only texts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
    # of these, only what asks for nothing
    name: None = None
    refusal: None = None
    annotations: NoList | None = None
    audio: None = None
    tool_call_id: None = None
    tool_calls: NoList | None = None
    function_call: None = None


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
VariableName = Annotated[str, Field(max_length=MAX_VARIABLE_NAME)]
TemplateVariables = Annotated[
    dict[VariableName, bool | int | float | str],
    Field(max_length=MAX_TEMPLATE_VARIABLES),
    counted_items(MAX_TEMPLATE_VARIABLES),
]


class ChatBody(SamplingBody):
    """POST /v1/chat/completions. `chat_template_kwargs` are variables that a chat template asks for, such as `enable_thinking`."""

    messages: Messages
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    # ours
    chat_template_kwargs: TemplateVariables | None = None
    # of these, only what asks for nothing
    store: Literal[False] | None = None
    metadata: NoMap | None = None
    response_format: TextFormat | None = None
    tools: NoList | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: NoList | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1, fail_fast=True)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None


class CompletionBody(SamplingBody):
    """POST /v1/completions. With `echo` the prompt comes first, with `logprobs` too its own; `max_tokens` 0 then asks for nothing else."""

    prompt: Inputs
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    # of these, only what asks for nothing
    best_of: One | None = None
    suffix: NoText | None = None


class CachedTokens(ResponseBody):
    """Prompt tokens that came from the prefix cache."""

    cached_tokens: int


class Usage(ResponseBody):
    """Tokens of a request: each prompt once, and all that was generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | None = None


class TopLogprob(ResponseBody):
    """A token that could have stood at a place. `token` has U+FFFD where it is half a character; `bytes` are all it has."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token and the likeliest ones at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(ResponseBody):
    """Log probabilities of an answer's tokens, the one that stopped it last."""

    content: list[TokenLogprob]
    refusal: None = None


class CompletionLogprobs(ResponseBody):
    """Log probabilities of a text's tokens, the one that stopped it last. The first token of a prompt has none. A token that is half a
    character is shown as "bytes:\\\\xe2". `text_offset` is where each token begins if all their texts are joined."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


FinishReason = Literal["stop", "length"]


class ChatAnswerMessage(ResponseBody):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(ResponseBody):
    """One of n answers."""

    index: int
    message: ChatAnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(ResponseBody):
    """The answer to a chat request."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(ResponseBody):
    """What was added to an answer; the role comes first."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(ResponseBody):
    """What was added to one of n answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(ResponseBody):
    """An event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionChoice(ResponseBody):
    """One text; choices of the first prompt come first."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class Completion(ResponseBody):
    """The answer to a completion request, or an event of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None
