"""POST /v1/embeddings: one vector of length 1 for each input."""

import base64

from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.labelling_schema import Embedding, EmbeddingList, EmbeddingsBody
from actors.http.gate import note_of
from actors.http.responses import json_response
from actors.http.routes.prompts import check_num_inputs, encode_inputs, inputs_of
from actors.http.routes.scoring import check_finite, check_lengths, scored, usage_of
from actors.http.served import Service
from actors.http.turns import admitted
from actors.online.model import FloatArray
from models.tasks.embedding import EmbedOptions


async def answer_embeddings(service: Service, request: Request, body: EmbeddingsBody) -> Response:
    """The response to an embeddings request."""
    note = note_of(request)
    served = service.find(body.model, note)
    inputs = inputs_of(body.input)
    check_num_inputs(inputs, service.limits, param="input")
    encoded = await admitted(served, request, encode_inputs(inputs, served, service.limits, param="input"))
    check_lengths(encoded, served.card.max_model_len)
    token_ids = [ids.tolist() for ids in encoded]
    vectors = await scored(service, request, served, served.model.embed(token_ids, EmbedOptions()), token_ids)
    check_finite(vectors)
    shown = _base64 if body.encoding_format == "base64" else _numbers
    return json_response(
        EmbeddingList(
            model=served.card.name,
            data=[Embedding(index=index, embedding=shown(vector)) for index, vector in enumerate(vectors)],
            usage=usage_of(token_ids),
        )
    )


def _numbers(vector: FloatArray) -> list[float]:
    found: list[float] = vector.tolist()
    return found


def _base64(vector: FloatArray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
