"""Pairs of a query and a document -> how relevant each document is, by a reranker of any form (`models.tasks.rerank`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from fastapi import Request

from actors.http.errors import ApiError, too_long
from actors.http.gate import note_of
from actors.http.limits import CHARS_PER_TOKEN, RequestLimits, max_text_chars
from actors.http.routes.prompts import (
    Int32Array,
    check_num_chars,
    check_num_inputs,
    check_num_tokens,
    cut_by_bytes,
    num_utf8_bytes,
    too_many_chars,
)
from actors.http.routes.scoring import check_finite, scored
from actors.http.served import ServedModel, Service
from actors.http.texts import text_work
from actors.http.turns import admitted
from models.errors import RequestError
from models.tasks.rerank import Pair, Reranking


@dataclass(frozen=True, kw_only=True, slots=True)
class Relevance:
    """The scores of a request's pairs, and the tokens that were read for them."""

    scores: Sequence[float]
    token_ids: Sequence[Sequence[int]]


async def relevance_of(
    service: Service,
    request: Request,
    name: str,
    pairs: Sequence[Pair],
    *,
    params: tuple[str, str],
    instruction: str | None,
) -> Relevance:
    """How relevant each pair's document is to its query for the model `name`; `params` are what the request calls the two.

    Raises:
        ApiError: there is no such model, it is not a reranker, or a text does not fit.
        RequestError: a text cannot be encoded.
        TemplateError: the chat template failed.
    """
    served = service.find(name, note_of(request))
    reranking = served.require_reranking()
    try:
        reranking.check_instruction(instruction)
    except RequestError as error:
        raise ApiError(400, f"instruction: {error}", param="instruction", code="unsupported_parameter") from error
    encoding = _encoded(served, reranking, pairs, instruction, service.limits, params)
    token_ids = [ids.tolist() for ids in await admitted(served, request, encoding)]
    model = served.model
    if reranking.label_ids:
        work = model.score_labels(token_ids, [reranking.label_ids] * len(token_ids))
        values = await scored(service, request, served, work, token_ids)
    else:
        values = np.stack(await scored(service, request, served, model.score(token_ids), token_ids))  # [N, 1]
    check_finite(values)
    return Relevance(scores=reranking.relevance(values).tolist(), token_ids=token_ids)


async def _encoded(
    served: ServedModel,
    reranking: Reranking,
    pairs: Sequence[Pair],
    instruction: str | None,
    limits: RequestLimits,
    params: tuple[str, str],
) -> list[Int32Array]:
    check_num_inputs([pair.document for pair in pairs], limits, param=params[1])
    _check_chars(served, pairs, instruction, limits, params)
    num_around = num_utf8_bytes(instruction or reranking.prompt)
    found: list[Int32Array] = []
    for piece in _pieces(pairs, num_around):
        found += await served.texts.run(
            "text" if reranking.chat is None else "template",
            text_work.encode_reranked,
            piece,
            reranking,
            instruction,
            param=params[1],
        )
        check_num_tokens(found, limits, param=params[1])
    limit = reranking.max_len(served.card.facts.max_model_len)
    for index, ids in enumerate(found):
        if len(ids) > limit:
            raise too_long(f"{params[1]}[{index}] with its {params[0]} has", len(ids), limit, params[1])
    return found


def _check_chars(
    served: ServedModel, pairs: Sequence[Pair], instruction: str | None, limits: RequestLimits, params: tuple[str, str]
) -> None:
    """Refuses more characters than could fit, a query counted for each of its documents, before anything is tokenized."""
    most = max_text_chars(served.card.facts.max_model_len)
    check_num_chars([instruction or ""], most, limits, param="instruction")
    check_num_chars([pair.query for pair in pairs[:1]], most, limits, param=params[0])
    total = 0
    for index, pair in enumerate(pairs):
        num_chars = len(pair.query) + len(pair.document) + len(instruction or "")
        total += num_chars
        if num_chars > most:
            raise too_many_chars(f"{params[1]}[{index}] with its {params[0]}", num_chars, most, params[1])
    if total > CHARS_PER_TOKEN * limits.max_request_tokens:
        most = CHARS_PER_TOKEN * limits.max_request_tokens
        raise too_many_chars(f"all of {params[1]}, each with its {params[0]},", total, most, params[1])


def _pieces(pairs: Sequence[Pair], num_around: int) -> Iterator[list[Pair]]:
    sizes = [num_utf8_bytes(pair.query) + num_utf8_bytes(pair.document) + num_around for pair in pairs]
    return cut_by_bytes(pairs, sizes)
