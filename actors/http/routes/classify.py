"""POST /v1/classify: each input's class, by a classification head or by a causal model that is asked for one of the request's labels.

The rules are those of a job's `classify` task without windows (`models.tasks.labels`).
"""

from collections.abc import Sequence

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.classify_schema import Classification, ClassificationList, ClassifyBody
from actors.http.gate import note_of
from actors.http.responses import json_response
from actors.http.routes.classify_body import check_forms, check_head, texts_of
from actors.http.routes.label_answers import answers_of
from actors.http.routes.prompts import encode_inputs, inputs_of
from actors.http.routes.scoring import check_finite, check_lengths, scored, usage_of
from actors.http.served import ServedModel, Service
from actors.http.turns import admitted
from models.tasks.calibration import label_mass, without_bias
from models.tasks.labels import MULTI_LABEL_THRESHOLD, Outcome, class_values


async def answer_classify(service: Service, request: Request, body: ClassifyBody) -> Response:
    """The response to a classify request."""
    served = service.find(body.model, note_of(request))
    served.require_head("causal", "sequence-classification")
    check_forms(body)
    of_head = served.card.facts.head == "sequence-classification"
    answer = await (_of_head if of_head else _of_labels)(service, request, served, body)
    return json_response(answer)


async def _of_head(service: Service, request: Request, served: ServedModel, body: ClassifyBody) -> ClassificationList:
    check_head(body)
    inputs = inputs_of(texts_of(body, "input", service.limits))
    encoded = await admitted(served, request, encode_inputs(inputs, served, service.limits, param="input"))
    check_lengths(encoded, served.card.facts.max_model_len)
    token_ids = [ids.tolist() for ids in encoded]
    logits = np.stack(await scored(service, request, served, served.model.score(token_ids), token_ids))  # [N, C]
    check_finite(logits)
    names, outcome = served.card.facts.class_names, served.card.facts.outcome
    values = class_values(logits, outcome).tolist()
    data = [_classification(index, row, names, outcome) for index, row in enumerate(values)]
    return ClassificationList(model=served.card.name, outcome=outcome, data=data, usage=usage_of(token_ids))


async def _of_labels(service: Service, request: Request, served: ServedModel, body: ClassifyBody) -> ClassificationList:
    found = await answers_of(service, request, served, body)
    names, prior = list(body.labels or ()), found.log_prior
    calibrated = found.logprobs if prior is None else without_bias(found.logprobs, prior)  # [N, L]
    values = class_values(calibrated, "single_label").tolist()
    masses = label_mass(found.logprobs).tolist() if body.label_mass else [None] * len(values)
    return ClassificationList(
        model=served.card.name,
        outcome="single_label",
        calibrate=None if prior is None else "prior",
        data=[
            _classification(index, row, names, "single_label", mass)
            for index, (row, mass) in enumerate(zip(values, masses, strict=True))
        ],
        usage=usage_of(found.token_ids),
    )


def _classification(
    index: int, values: Sequence[float], names: Sequence[str], outcome: Outcome, mass: float | None = None
) -> Classification:
    scores = dict(zip(names, values, strict=True))
    if outcome == "regression":
        only = values[0] if len(values) == 1 else None
        return Classification(index=index, label=None, score=only, scores=scores, labels=None)
    best = max(scores, key=lambda name: scores[name])  # the first of equals
    chosen = [name for name in names if scores[name] >= MULTI_LABEL_THRESHOLD] if outcome == "multi_label" else None
    return Classification(index=index, label=best, score=scores[best], scores=scores, labels=chosen, label_mass=mass)
