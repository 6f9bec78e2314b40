"""POST /v1/classify: each input's class, by a classification head or by a causal model that is asked for one of the request's labels.

The rules are those of a job's `classify` task without windows (`models.tasks.labels`).
"""

from collections.abc import Sequence

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.labelling_schema import Classification, ClassificationList, ClassifyBody
from actors.http.errors import ApiError, unsupported
from actors.http.gate import note_of
from actors.http.responses import json_response
from actors.http.routes.label_prompts import LabelQuestion, encode_asked
from actors.http.routes.prompts import check_num_inputs, encode_inputs, inputs_of
from actors.http.routes.scoring import check_finite, check_lengths, scored, usage_of
from actors.http.served import ServedModel, Service
from actors.http.turns import admitted
from actors.online.model import FloatArray
from models.tasks.labels import MULTI_LABEL_THRESHOLD, Outcome, class_values


async def answer_classify(service: Service, request: Request, body: ClassifyBody) -> Response:
    """The response to a classify request."""
    served = service.find(body.model, note_of(request))
    served.require_head("causal", "sequence-classification")
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_num_inputs(texts, service.limits, param="input")
    for index, text in enumerate(texts):
        if not text:
            raise ApiError(400, f"input[{index}] is empty", param="input")
    if served.card.facts.head == "causal":
        return await _answer_labels(service, request, served, body, texts)
    for name in ("labels", "question"):
        if getattr(body, name) is not None:
            raise unsupported(name, "is for causal models; this one has a classification head with classes of its own")
    encoded = await admitted(served, request, encode_inputs(inputs_of(texts), served, service.limits, param="input"))
    check_lengths(encoded, served.card.facts.max_model_len)
    token_ids = [ids.tolist() for ids in encoded]
    logits = np.stack(await scored(service, request, served, served.model.score(token_ids), token_ids))  # [N, C]
    return _response(served, logits, served.card.facts.class_names, served.card.facts.outcome, token_ids)


async def _answer_labels(
    service: Service, request: Request, served: ServedModel, body: ClassifyBody, texts: Sequence[str]
) -> Response:
    if body.labels is None:
        raise ApiError(400, "labels: a causal model needs the labels to choose from", param="labels")
    asked = LabelQuestion(question=body.question, labels=body.labels)
    encoded = await admitted(served, request, encode_asked(texts, asked, served, service.limits))
    token_ids = [ids.tolist() for ids in encoded.prompts]
    work = served.model.score_labels(token_ids, encoded.label_ids)
    logprobs = await scored(service, request, served, work, token_ids)  # [N, L]
    return _response(served, logprobs, body.labels, "single_label", token_ids)


def _response(
    served: ServedModel,
    logits: FloatArray,
    names: Sequence[str],
    outcome: Outcome,
    token_ids: Sequence[Sequence[int]],
) -> Response:
    check_finite(logits)
    values = class_values(logits, outcome)
    return json_response(
        ClassificationList(
            model=served.card.name,
            outcome=outcome,
            data=[_classification(index, row.tolist(), names, outcome) for index, row in enumerate(values)],
            usage=usage_of(token_ids),
        )
    )


def _classification(index: int, values: Sequence[float], names: Sequence[str], outcome: Outcome) -> Classification:
    scores = dict(zip(names, values, strict=True))
    if outcome == "regression":
        only = values[0] if len(values) == 1 else None
        return Classification(index=index, label=None, score=only, scores=scores, labels=None)
    best = max(scores, key=lambda name: scores[name])  # the first of equals
    chosen = [name for name in names if scores[name] >= MULTI_LABEL_THRESHOLD] if outcome == "multi_label" else None
    return Classification(index=index, label=best, score=scores[best], scores=scores, labels=chosen)
