"""POST /tokenize and /detokenize: what a model's tokenizer makes of a text, of messages, and of token ids."""

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.labelling_schema import DetokenizeBody, Detokenized, TokenizeChatBody, TokenizeTextBody, Tokens
from actors.http.gate import note_of
from actors.http.responses import json_response
from actors.http.routes.prompts import check_num_tokens, check_vocabulary, decode, encode_chat, encode_text
from actors.http.served import Service
from actors.http.terms import terms_of
from actors.http.turns import admitted


async def answer_tokenize(service: Service, request: Request, body: TokenizeTextBody | TokenizeChatBody) -> Response:
    """The response to a tokenize request."""
    served, limits = service.find(body.model, note_of(request)), service.limits
    if isinstance(body, TokenizeChatBody):
        work = encode_chat(
            body.messages,
            served,
            {},
            now=terms_of(request).moment,
            add_generation_prompt=body.add_generation_prompt,
        )
    else:
        work = encode_text(body.prompt, served, limits, param="prompt", add_special_tokens=body.add_special_tokens)
    found = (await admitted(served, request, work)).tolist()
    return json_response(Tokens(count=len(found), max_model_len=served.card.facts.max_model_len, tokens=found))


async def answer_detokenize(service: Service, request: Request, body: DetokenizeBody) -> Response:
    """The response to a detokenize request."""
    served = service.find(body.model, note_of(request))
    check_num_tokens([body.tokens], service.limits, param="tokens")
    token_ids = np.array(body.tokens, np.int32)
    check_vocabulary(token_ids, served.card, param="tokens")
    return json_response(Detokenized(prompt=await admitted(served, request, decode(token_ids, served, param="tokens"))))
