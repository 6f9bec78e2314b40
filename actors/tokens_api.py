"""POST /tokenize and /detokenize: what a model's tokenizer makes of a text, of messages, and of token ids."""

import asyncio

from fastapi import Request
from fastapi.responses import Response

from actors.gate import note_of
from actors.labelling_schema import DetokenizeBody, Detokenized, TokenizeChatBody, TokenizeTextBody, Tokens
from actors.prompts import check_vocabulary, encode_chat
from actors.responses import json_response
from actors.served import Service


async def answer_tokenize(service: Service, request: Request, body: TokenizeTextBody | TokenizeChatBody) -> Response:
    """The response to a tokenize request."""
    served = service.find(body.model, note_of(request))
    tokenizer = served.tokenizer
    if isinstance(body, TokenizeChatBody):
        found = list(await encode_chat(body.messages, tokenizer, {}, add_generation_prompt=body.add_generation_prompt))
    else:
        text = tokenizer.protect(body.prompt)
        found = await asyncio.to_thread(tokenizer.encode, text, add_special_tokens=body.add_special_tokens)
    return json_response(Tokens(count=len(found), max_model_len=served.card.max_model_len, tokens=found))


async def answer_detokenize(service: Service, request: Request, body: DetokenizeBody) -> Response:
    """The response to a detokenize request."""
    served = service.find(body.model, note_of(request))
    check_vocabulary(body.tokens, served.card, param="tokens")
    text = await asyncio.to_thread(served.tokenizer.decode, body.tokens, skip_special_tokens=False)
    return json_response(Detokenized(prompt=text))
