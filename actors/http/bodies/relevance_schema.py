"""Bodies of what says how relevant texts are to each other: rerank, as Jina, Cohere and vLLM define it, and vLLM's score."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from actors.http.bodies.labelling_schema import InputUsage
from actors.http.bodies.schema import ResponseBody
from actors.http.bodies.types import Body, ModelName, Text, Texts
from actors.http.limits import MAX_INPUTS


class DocumentBody(Body):
    """A document as an object."""

    text: str


def _kind(given: Any) -> str:
    return "str" if isinstance(given, str) else "DocumentBody"


_Document = Annotated[
    Annotated[str, Tag("str")] | Annotated[DocumentBody, Tag("DocumentBody")],
    Discriminator(_kind),
]


class RerankBody(Body):
    """POST /v1/rerank. `instruction` says what to judge by, where the model has a place for it; `top_n` leaves all but the best out."""

    model: ModelName
    query: Text
    documents: Annotated[list[_Document], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    # ours
    instruction: Text | None = None


class RankedDocument(ResponseBody):
    """A document as it was given."""

    text: str


class Ranked(ResponseBody):
    """A document's place among those that were given, and its score; null for `document` where it was not to be returned."""

    index: int
    relevance_score: float
    document: RankedDocument | None


class Ranking(ResponseBody):
    """The answer to a rerank request, the most relevant document first, the earlier of equals before."""

    id: str
    model: str
    results: list[Ranked]
    usage: InputUsage


class ScoreBody(Body):
    """POST /v1/score. Of `text_1` there is one for all of `text_2`, or as many."""

    model: ModelName
    text_1: Texts
    text_2: Texts
    # ours
    instruction: Text | None = None


class Score(ResponseBody):
    """The score of one pair."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreList(ResponseBody):
    """The answer to a score request, in the order of `text_2`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: InputUsage
