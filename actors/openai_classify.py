"""POST /v1/classify: each input's class, by a classification head or by a causal model that is asked for one of the request's labels.

The rules are those of a job's `classify` task without windows (`models.labels`).
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from actors.gate import note_of
from actors.labelling_schema import Classification, ClassificationList, ClassifyBody
from actors.online import FloatArray
from actors.openai_errors import ApiError, unsupported
from actors.prompts import check_num_inputs, check_num_tokens, encode_inputs, inputs_of
from actors.responses import json_response
from actors.scoring import check_finite, check_lengths, scored, usage_of
from actors.served import ServedModel, Service
from models.labels import (
    DEFAULT_QUESTION,
    MULTI_LABEL_THRESHOLD,
    Outcome,
    class_values,
    fault_of_labels,
    label_prompt,
    label_token_ids,
)
from models.text import Tokenizer


async def answer_classify(service: Service, request: Request, body: ClassifyBody) -> Response:
    """The response to a classify request."""
    served = service.find(body.model, note_of(request))
    served.require_head("causal", "sequence-classification")
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_num_inputs(texts, service.limits, param="input")
    served.admission.check()
    for index, text in enumerate(texts):
        if not text:
            raise ApiError(400, f"input[{index}] is empty", param="input")
    if served.card.head == "causal":
        return await _answer_labels(service, request, served, body, texts)
    for name in ("labels", "question"):
        if getattr(body, name) is not None:
            raise unsupported(name, "is for causal models; this one has a classification head with classes of its own")
    token_ids = await encode_inputs(inputs_of(texts), served.tokenizer, served.card, param="input")
    check_num_tokens(token_ids, service.limits, param="input")
    check_lengths(token_ids, served.card.max_model_len)
    logits = np.stack(await scored(service, request, served, served.model.score(token_ids), token_ids))  # [N, C]
    return _response(served, logits, served.card.class_names, served.card.outcome, token_ids)


async def _answer_labels(
    service: Service, request: Request, served: ServedModel, body: ClassifyBody, texts: Sequence[str]
) -> Response:
    if body.labels is None:
        raise ApiError(400, "labels: a causal model needs the labels to choose from", param="labels")
    labels = body.labels
    label_ids = await asyncio.to_thread(_label_ids, served, labels)
    token_ids = await asyncio.to_thread(_encode, served.tokenizer, texts, body.question or DEFAULT_QUESTION, labels)
    check_num_tokens([*token_ids, *label_ids], service.limits, param="input")
    check_lengths(token_ids, served.card.max_model_len - max(map(len, label_ids)))
    work = served.model.score_labels(token_ids, label_ids)
    logprobs = await scored(service, request, served, work, token_ids)  # [N, L]
    return _response(served, logprobs, labels, "single_label", token_ids)


def _label_ids(served: ServedModel, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Token ids of each label.

    Raises:
        ApiError: 400, they cannot be told from each other.
    """
    shown = [served.tokenizer.protect(label) for label in labels]
    label_ids = label_token_ids(served.tokenizer, shown, eos_token_ids=served.card.eos_token_ids)
    fault = fault_of_labels(labels, label_ids)
    if fault is not None:
        raise ApiError(400, f"labels: {fault}", param="labels")
    return label_ids


def _encode(tokenizer: Tokenizer, texts: Sequence[str], question: str, labels: Sequence[str]) -> list[list[int]]:
    asked, shown = tokenizer.protect(question), [tokenizer.protect(label) for label in labels]
    prompts = [label_prompt(tokenizer, text=tokenizer.protect(text), question=asked, labels=shown) for text in texts]
    return tokenizer.encode_batch(prompts, add_special_tokens=tokenizer.chat_template is None)


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
