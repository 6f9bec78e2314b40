"""POST /v1/embeddings: one vector for each input, as the checkpoint makes it (`models.tasks.embedding`)."""

import base64

from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.labelling_schema import Embedding, EmbeddingList, EmbeddingsBody
from actors.http.errors import ApiError
from actors.http.gate import note_of
from actors.http.responses import json_response
from actors.http.routes.prompts import TextWay, check_num_inputs, encode_inputs, inputs_of, num_utf8_bytes
from actors.http.routes.scoring import check_finite, check_lengths, scored, usage_of
from actors.http.served import ServedModel, Service
from actors.http.texts import text_work
from actors.http.turns import admitted
from actors.online.model import FloatArray
from models.errors import RequestError
from models.tasks.embedding import EmbeddingConfig, EmbedOptions


async def answer_embeddings(service: Service, request: Request, body: EmbeddingsBody) -> Response:
    """The response to an embeddings request."""
    served, limits = service.find(body.model, note_of(request)), service.limits
    embedding = served.require_embedding()
    _check_asked(embedding, body)
    inputs = inputs_of(body.input)
    check_num_inputs(inputs, limits, param="input")
    prompt = embedding.prompt(name=body.prompt_name) if isinstance(inputs[0], str) else ""
    work = encode_inputs(inputs, served, limits, param="input", how=_way(embedding, prompt))
    encoded = await admitted(served, request, work)
    check_lengths(encoded, embedding.max_len(served.card.facts.max_model_len))
    token_ids = [ids.tolist() for ids in encoded]
    options = EmbedOptions(
        dimensions=body.dimensions,
        num_skipped=await admitted(served, request, _num_skipped(served, embedding, prompt)),
    )
    vectors = await scored(service, request, served, served.model.embed(token_ids, options), token_ids)
    check_finite(vectors)
    shown = _base64 if body.encoding_format == "base64" else _numbers
    return json_response(
        EmbeddingList(
            model=served.card.name,
            data=[Embedding(index=index, embedding=shown(vector)) for index, vector in enumerate(vectors)],
            usage=usage_of(token_ids),
        )
    )


def _check_asked(embedding: EmbeddingConfig, body: EmbeddingsBody) -> None:
    """Refuses dimensions and prompts that the checkpoint does not have."""
    try:
        embedding.check(EmbedOptions(dimensions=body.dimensions))
    except RequestError as error:
        raise ApiError(400, str(error), param="dimensions") from error
    if body.prompt_name is None:
        return
    if not isinstance(inputs_of(body.input)[0], str):
        raise ApiError(400, "prompt_name: a prompt stands before texts, and token ids were given", param="prompt_name")
    try:
        embedding.prompt(name=body.prompt_name)
    except RequestError as error:
        raise ApiError(400, f"prompt_name: {error}", param="prompt_name") from error


def _way(embedding: EmbeddingConfig, prompt: str) -> TextWay:
    return TextWay(
        function=text_work.encode_embedded,
        arguments=(embedding, prompt),
        lane="text" if embedding.chat is None else "template",
        around_bytes=num_utf8_bytes(prompt),
    )


async def _num_skipped(served: ServedModel, embedding: EmbeddingConfig, prompt: str) -> int:
    """The tokens of the prompt that are not pooled; where all are, nothing has to be tokenized for that."""
    if embedding.pools_prompt or not prompt:
        return 0
    return await served.texts.run("text", text_work.count_skipped, embedding, prompt, param="input")


def _numbers(vector: FloatArray) -> list[float]:
    found: list[float] = vector.tolist()
    return found


def _base64(vector: FloatArray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
