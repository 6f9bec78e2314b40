"""The prior of a request's labels: what the model says of them after texts that say nothing, asked once for all that ask alike."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256

from fastapi import Request

from actors.http.errors import too_long
from actors.http.limits import max_text_chars
from actors.http.routes.label_prompts import longest_of
from actors.http.routes.scoring import check_finite, scored
from actors.http.served import ServedModel, Service
from actors.http.texts import label_work
from actors.http.texts.label_work import AskedLabels, LabelQuestion
from actors.http.turns import admitted
from models.tasks.calibration import Float64Array, log_prior


async def prior_of(
    service: Service, request: Request, served: ServedModel, question: LabelQuestion, found: AskedLabels
) -> Float64Array:
    """The log prior [L] of the labels of a question, of which `found` are the tokens.

    Raises:
        ApiError: 400, the prompts of these texts are too long; 500, the model answers with no numbers.
    """
    key = sha256(json.dumps(asdict(question)).encode()).digest()
    prior = served.priors.get(key)
    if prior is None:
        token_ids = await admitted(served, request, _encoded(served, question, found))
        work = served.model.score_labels(token_ids, [found.token_ids] * len(token_ids))
        logprobs = await scored(service, request, served, work, token_ids)  # [texts, L]
        check_finite(logprobs)
        prior = log_prior(logprobs)
        served.priors.put(key, prior)
    return prior


async def _encoded(served: ServedModel, question: LabelQuestion, found: AskedLabels) -> Sequence[Sequence[int]]:
    most = max_text_chars(served.card.facts.max_model_len)
    shared = (question, found.num_dropped, most)
    prompts = await served.texts.run("text", label_work.encode_content_free, *shared, param="calibrate")
    room, longest = served.card.facts.max_model_len - longest_of(found.token_ids), max(map(len, prompts))
    if longest > room:
        raise too_long("what stands around a text that says nothing has", longest, room, "calibrate")
    return [ids.tolist() for ids in prompts]
