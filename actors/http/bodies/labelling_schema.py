"""Bodies of what is neither generated nor classified: models, embeddings, extractions, tokens, and
whether the service lives."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from actors.http.bodies.schema import Messages, ResponseBody
from actors.http.bodies.types import Body, Inputs, ModelName, Text, Texts, TokenId
from actors.http.limits import MAX_REQUEST_TOKENS
from models.config.limits import MAX_WIDTH as MAX_DIMENSIONS

MAX_PROMPT_NAME = 64
PromptName = Annotated[str, Field(max_length=MAX_PROMPT_NAME)]


class ModelInfo(ResponseBody):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "millrace"
    max_model_len: int
    head: str


class ModelList(ResponseBody):
    """GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class InputUsage(ResponseBody):
    """Tokens of all inputs, special tokens and what windows share included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsBody(Body):
    """POST /v1/embeddings. `dimensions` keeps the first of each vector; `prompt_name` is one of the checkpoint's prompts, which stands
    before texts."""

    model: ModelName
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    user: str | None = None
    # ours
    prompt_name: PromptName | None = None


class Embedding(ResponseBody):
    """The vector of one input: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(ResponseBody):
    """The answer to an embeddings request."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: InputUsage


class ExtractBody(Body):
    """POST /v1/extract. A question-answering head needs `question`; a token-classification head takes none."""

    model: ModelName
    input: Texts
    question: Text | None = None


class ExtractedSpan(ResponseBody):
    """Characters `start` to `end` (exclusive) of the input."""

    start: int
    end: int
    label: str
    text: str
    score: float


class ExtractedAnswer(ResponseBody):
    """Characters `start` to `end` (exclusive) of the input, and their probability as the answer."""

    start: int
    end: int
    text: str
    score: float


class Extraction(ResponseBody):
    """What was found in one input: spans, or the answer, if there is one."""

    index: int
    spans: list[ExtractedSpan] | None = None
    answer: ExtractedAnswer | None = None


class ExtractionList(ResponseBody):
    """The answer to an extract request."""

    object: Literal["list"] = "list"
    model: str
    data: list[Extraction]
    usage: InputUsage


class TokenizeTextBody(Body):
    """POST /tokenize with a text, as a completion encodes it."""

    model: ModelName
    prompt: str
    add_special_tokens: bool = True


class TokenizeChatBody(Body):
    """POST /tokenize with messages, as a chat encodes them."""

    model: ModelName
    messages: Messages
    add_generation_prompt: bool = True


def _kind_of_tokenize(given: Any) -> str:
    return "TokenizeChatBody" if isinstance(given, dict) and "messages" in given else "TokenizeTextBody"


TokenizeBody = Annotated[
    Annotated[TokenizeTextBody, Tag("TokenizeTextBody")] | Annotated[TokenizeChatBody, Tag("TokenizeChatBody")],
    Discriminator(_kind_of_tokenize),
]
"""POST /tokenize: with `messages` a chat, else a text."""


class Tokens(ResponseBody):
    """Token ids, and how many the model takes."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: ModelName
    tokens: Annotated[list[TokenId], Field(max_length=MAX_REQUEST_TOKENS, fail_fast=True)]


class Detokenized(ResponseBody):
    """The text of token ids, special tokens as their strings."""

    prompt: str


class Health(ResponseBody):
    """GET /health: this process answers."""

    status: Literal["ok"] = "ok"


class Readiness(ResponseBody):
    """GET /ready: every model can serve. Their names are for those who have a key."""

    status: Literal["ready"] = "ready"
    models: list[str] | None
