"""POST /v1/score: how relevant each text is to another."""

from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.relevance_schema import Score, ScoreBody, ScoreList
from actors.http.errors import ApiError
from actors.http.responses import json_response
from actors.http.routes.relevance import relevance_of
from actors.http.routes.scoring import usage_of
from actors.http.served import Service
from actors.http.terms import terms_of
from models.tasks.rerank import Pair


async def answer_score(service: Service, request: Request, body: ScoreBody) -> Response:
    """The response to a score request."""
    terms = terms_of(request)
    pairs, params = _pairs(body), ("text_1", "text_2")
    found = await relevance_of(service, request, body.model, pairs, params=params, instruction=body.instruction)
    return json_response(
        ScoreList(
            id=terms.new_id("score"),
            created=terms.created,
            model=body.model,
            data=[Score(index=index, score=score) for index, score in enumerate(found.scores)],
            usage=usage_of(found.token_ids),
        )
    )


def _pairs(body: ScoreBody) -> list[Pair]:
    """One for each of `text_2`, of which each has a `text_1` of its own, or all the same."""
    first, second = ([one] if isinstance(one, str) else one for one in (body.text_1, body.text_2))
    if len(first) not in (1, len(second)):
        raise ApiError(
            400,
            f"text_1 has {len(first)} texts and text_2 {len(second)}; give one text_1, or as many as text_2 has",
            param="text_1",
        )
    queries = first * len(second) if len(first) == 1 else first
    return [Pair(query=query, document=document) for query, document in zip(queries, second, strict=True)]
