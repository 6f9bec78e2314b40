"""POST /v1/rerank: documents in the order of how relevant they are to a query."""

from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.relevance_schema import Ranked, RankedDocument, Ranking, RerankBody
from actors.http.responses import json_response
from actors.http.routes.relevance import relevance_of
from actors.http.routes.scoring import usage_of
from actors.http.served import Service
from actors.http.terms import terms_of
from models.tasks.rerank import Pair


async def answer_rerank(service: Service, request: Request, body: RerankBody) -> Response:
    """The response to a rerank request."""
    terms = terms_of(request)
    documents = [one if isinstance(one, str) else one.text for one in body.documents]
    pairs = [Pair(query=body.query, document=document) for document in documents]
    params = ("query", "documents")
    found = await relevance_of(service, request, body.model, pairs, params=params, instruction=body.instruction)
    order = sorted(range(len(documents)), key=lambda index: -found.scores[index])  # the first of equals first
    results = [
        Ranked(
            index=index,
            relevance_score=found.scores[index],
            document=None if body.return_documents is False else RankedDocument(text=documents[index]),
        )
        for index in order[: body.top_n]
    ]
    return json_response(
        Ranking(id=terms.new_id("rerank"), model=body.model, results=results, usage=usage_of(found.token_ids))
    )
