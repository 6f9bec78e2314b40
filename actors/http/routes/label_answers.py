"""What a causal model says of the labels of a classify request: their log probabilities, and what is there whatever the text is."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request

from actors.http.bodies.classify_schema import ClassifyBody
from actors.http.routes.classify_body import own_labels_of, question_of, texts_of
from actors.http.routes.label_prior import prior_of
from actors.http.routes.label_prompts import EncodedLabels, encode_asked, encode_labels
from actors.http.routes.own_prompts import encode_conversation, encode_prompts
from actors.http.routes.scoring import check_finite, scored
from actors.http.served import ServedModel, Service
from actors.http.terms import terms_of
from actors.http.turns import admitted
from actors.online.model import FloatArray
from models.tasks.calibration import Float64Array


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelAnswers:
    """The log probabilities of the labels behind each prompt [N, L], the prompts' tokens, and the labels' log prior [L] where one
    is to be taken out."""

    logprobs: FloatArray
    token_ids: Sequence[Sequence[int]]
    log_prior: Float64Array | None


async def answers_of(service: Service, request: Request, served: ServedModel, body: ClassifyBody) -> LabelAnswers:
    """The answers to what a request classifies.

    Raises:
        ApiError: 400, keys that do not go together, or too much of something; 500, values that are no numbers.
        RequestError: a text cannot be encoded.
    """
    if body.input is not None:
        return await _to_input(service, request, served, body)
    work = _whole(service, request, served, body)
    return await _scored(service, request, served, await admitted(served, request, work))


async def _to_input(service: Service, request: Request, served: ServedModel, body: ClassifyBody) -> LabelAnswers:
    texts, question = texts_of(body, "input", service.limits), question_of(body)
    found = await admitted(served, request, encode_labels(texts, question, served, service.limits))
    encoded = await admitted(served, request, encode_asked(texts, question, found, served, service.limits))
    prior = None
    if body.calibrate == "prior":
        prior = await prior_of(service, request, served, question, found)
    return await _scored(service, request, served, encoded, prior)


async def _whole(service: Service, request: Request, served: ServedModel, body: ClassifyBody) -> EncodedLabels:
    own = own_labels_of(body)
    if body.messages is None:
        return await encode_prompts(texts_of(body, "prompt", service.limits), own, served, service.limits)
    variables = body.chat_template_kwargs or {}
    now = terms_of(request).moment
    return await encode_conversation(body.messages, variables, own, served, service.limits, now=now)


async def _scored(
    service: Service,
    request: Request,
    served: ServedModel,
    encoded: EncodedLabels,
    log_prior: Float64Array | None = None,
) -> LabelAnswers:
    token_ids = [ids.tolist() for ids in encoded.prompts]
    work = served.model.score_labels(token_ids, encoded.labels)
    logprobs = await scored(service, request, served, work, token_ids)
    check_finite(logprobs)
    return LabelAnswers(logprobs=logprobs, token_ids=token_ids, log_prior=log_prior)
