"""POST /v1/extract: spans of a token-classification head, or the answer of a question-answering head; character offsets in the input.

The rules are those of a job's `extract` task with its default windows (`models.document`, `models.spans`, `models.answers`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from actors.gate import note_of
from actors.labelling_schema import ExtractBody, ExtractedAnswer, ExtractedSpan, Extraction, ExtractionList
from actors.online import FloatArray
from actors.openai_errors import ApiError, too_long, unsupported
from actors.prompts import check_num_inputs, check_num_tokens
from actors.responses import json_response
from actors.scoring import check_finite, scored, usage_of
from actors.served import ServedModel, Service
from models.answers import find_answer
from models.document import Document, DocumentPart
from models.spans import TaggedTokens, TagScheme, find_spans

OVERLAP_DIVISOR = 4
"""Neighbouring windows share this part of a window, as a job's do by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """An input in windows."""

    index: int
    text: str
    parts: list[DocumentPart]


async def answer_extract(service: Service, request: Request, body: ExtractBody) -> Response:
    """The response to an extract request."""
    served = service.find(body.model, note_of(request))
    served.require_head("token-classification", "question-answering")
    if served.card.head == "token-classification" and body.question is not None:
        raise unsupported("question", "is for question-answering heads; this model tags tokens")
    if served.card.head == "question-answering" and body.question is None:
        raise ApiError(400, "question: a question-answering head needs one", param="question")
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_num_inputs(texts, service.limits, param="input")
    served.admission.check()
    inputs = await asyncio.to_thread(_read, served, texts, body.question)
    token_ids = [part.token_ids.tolist() for one in inputs for part in one.parts]
    check_num_tokens(token_ids, service.limits, param="input")
    logits = iter(await scored(service, request, served, served.model.score(token_ids), token_ids))
    data = [_extraction(served, one, [next(logits) for _ in one.parts]) for one in inputs]
    return json_response(ExtractionList(model=served.card.name, data=data, usage=usage_of(token_ids)))


def _read(served: ServedModel, texts: Sequence[str], question: str | None) -> list[_Read]:
    if question is None:
        encodings = served.tokenizer.encode_with_offsets(texts)
        documents = [Document.of(encoding, sequence=0) for encoding in encodings]
    else:
        encodings = served.tokenizer.encode_with_offsets([question] * len(texts), texts)
        documents = [Document.of(encoding, sequence=1) for encoding in encodings]
    return [
        _Read(index=index, text=text, parts=_parts(document, served.card.max_model_len, is_owned=question is None))
        for index, (text, document) in enumerate(zip(texts, documents, strict=True))
    ]


def _parts(document: Document, window: int, *, is_owned: bool) -> list[DocumentPart]:
    """The windows of a text, none if it has no tokens; `is_owned`: each token is answered for by one of them."""
    room, overlap = document.room(window), window // OVERLAP_DIVISOR
    if document.num_tokens > room and room <= overlap:
        num_asked = len(document.token_ids) - document.num_tokens
        raise too_long("the question has", num_asked, window - overlap - 1, "question")
    windows = document.cut(room=room, overlap=overlap)
    return [document.owned_part(one) if is_owned else document.part(one) for one in windows]


def _extraction(served: ServedModel, one: _Read, logits: Sequence[FloatArray]) -> Extraction:
    for values in logits:
        check_finite(values)
    if served.card.head == "question-answering":
        answer = find_answer(zip(logits, (part.offsets for part in one.parts), strict=True), one.text)
        return Extraction(
            index=one.index, answer=None if answer is None else ExtractedAnswer.model_validate(asdict(answer))
        )
    if not one.parts:
        return Extraction(index=one.index, spans=[])
    offsets = np.concatenate([part.offsets for part in one.parts])  # [T, 2] over all windows
    tokens = TaggedTokens.of(np.zeros(len(offsets), np.int64), offsets, np.concatenate(logits))
    (spans,) = find_spans(tokens, TagScheme.of(served.card.class_names), [one.text])
    return Extraction(index=one.index, spans=[ExtractedSpan.model_validate(asdict(span)) for span in spans])
