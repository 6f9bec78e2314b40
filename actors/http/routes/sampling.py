"""The sampling of a request's body, and the sequences it asks for."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace

from fastapi import Request

from actors.http.bodies.schema import SamplingBody
from actors.http.errors import ApiError
from actors.http.limits import RequestLimits
from actors.http.routes.prompts import encode_texts
from actors.http.served import ServedModel
from actors.http.terms import Terms
from actors.http.turns import admitted
from actors.online.model import ModelCard, OnlineRequest
from models.engine.rules.rule import parameters_of
from models.engine.scheduling.request import SamplingParams

SEED_BITS = 63


def sampling_of(
    body: SamplingBody, *, max_tokens: int, logprobs: int | None, prompt_logprobs: int | None = None
) -> SamplingParams:
    """What a body says about drawing tokens; what it leaves out is as in OpenAI's API.

    Raises:
        ParameterError: values that do not go together.
    """
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        stop=stop,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        seed=body.seed,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        **body.of_rules,
    )


async def with_tokens_of_rules(
    params: SamplingParams, served: ServedModel, request: Request, limits: RequestLimits
) -> SamplingParams:
    """The same, whose rules have the tokens of their texts. Like all texts of requests they are read in the model's own processes.

    Raises:
        ParameterError: a rule can do nothing with them.
        ApiError: 400, they are too long, or take too much time.
    """
    texts = params.texts_of_rules
    if not texts:
        return params
    reading = encode_texts(texts, served, limits, param=_name_of_texts(params), add_special_tokens=False)
    return params.with_tokens([ids.tolist() for ids in await admitted(served, request, reading)])


def _name_of_texts(params: SamplingParams) -> str:
    return next(each.name for rule in params.rules if rule.texts for each in parameters_of(type(rule)))


def check_common(body: SamplingBody, limits: RequestLimits, terms: Terms) -> None:
    """Refuses what no model could answer.

    Raises:
        ApiError: 400, naming the field.
    """
    if (body.n or 1) > limits.max_n:
        raise ApiError(400, f"n was {body.n}; at most {limits.max_n} answers are possible", param="n")
    if body.stream and not terms.may_stream:
        raise ApiError(400, "stream was true; a request of a batch is answered whole: leave it out", param="stream")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options is for stream: true", param="stream_options")


def check_length(num_prompt: int, max_tokens: int, card: ModelCard, *, param: str) -> None:
    """Refuses a prompt that leaves too little room for its answer.

    Raises:
        ApiError: 400, with both numbers.
    """
    if num_prompt + max_tokens <= card.facts.max_model_len:
        return
    raise ApiError(
        400,
        f"this model's maximum context length is {card.facts.max_model_len} tokens; {num_prompt + max_tokens} were asked for, "
        f"{num_prompt} in {param} and {max_tokens} to generate: shorten {param} or lower max_tokens",
        param=param,
        code="context_length_exceeded",
    )


def requests_of(
    prompts: Sequence[tuple[tuple[int, ...], SamplingParams]], num_each: int, terms: Terms
) -> list[OnlineRequest]:
    """`num_each` sequences a prompt, those of the first prompt first; each answer to a prompt has draws of its own."""
    request_id = uuid.uuid4().hex  # an answer's id may be given again
    asked = [(token_ids, params, answer) for token_ids, params in prompts for answer in range(num_each)]
    return [
        OnlineRequest(
            request_id=f"{request_id}/{number}",
            token_ids=token_ids,
            params=_with_seed(params, answer, number, terms),
            priority=terms.priority,
        )
        for number, (token_ids, params, answer) in enumerate(asked)
    ]


def _with_seed(params: SamplingParams, answer: int, number: int, terms: Terms) -> SamplingParams:
    """With the seed of an answer to a prompt; where the body has none but its terms do, of the sequence of that number."""
    if params.seed is not None:
        return replace(params, seed=derived_seed(params.seed, answer))
    return params if terms.seed is None else replace(params, seed=derived_seed(terms.seed, number))


def derived_seed(seed: int, answer: int) -> int:
    """The seed of the answer of that number to one prompt; the first one's is the request's own."""
    if answer == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{answer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - SEED_BITS)
