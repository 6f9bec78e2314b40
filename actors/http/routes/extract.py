"""POST /v1/extract: spans of a token-classification head, or the answer of a question-answering head; character offsets in the input.

The rules are those of a job's `extract` task with its default windows (`models.tasks.document`, `spans` and `answers` beside it).
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.labelling_schema import ExtractBody, ExtractedAnswer, ExtractedSpan, Extraction, ExtractionList
from actors.http.errors import ApiError, too_long, unsupported
from actors.http.gate import note_of
from actors.http.limits import MAX_DOCUMENT_CHARS, RequestLimits, max_text_chars
from actors.http.responses import json_response
from actors.http.routes.prompts import check_num_chars, check_num_inputs, check_num_tokens, pieces
from actors.http.routes.scoring import check_finite, scored, usage_of
from actors.http.served import ServedModel, Service
from actors.http.texts import text_work
from actors.http.turns import admitted
from actors.online.model import FloatArray
from models.tasks.answers import find_answer
from models.tasks.document import Document, DocumentPart
from models.tasks.spans import TaggedTokens, TagScheme, find_spans
from models.tasks.windows import Window

OVERLAP_DIVISOR = 4
"""Neighbouring windows share this part of a window, as a job's do by default."""


PIECE_BYTES = 1 << 17
"""Of documents that are tokenized at a time: places in them take half of the memory."""


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
    if served.card.facts.head == "token-classification" and body.question is not None:
        raise unsupported("question", "is for question-answering heads; this model tags tokens")
    if served.card.facts.head == "question-answering" and body.question is None:
        raise ApiError(400, "question: a question-answering head needs one", param="question")
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_num_inputs(texts, service.limits, param="input")
    documents = await admitted(served, request, _documents(served, texts, body.question, service.limits))
    inputs = _read(texts, documents, served.card.facts.max_model_len, service.limits, is_owned=body.question is None)
    token_ids = [part.token_ids.tolist() for one in inputs for part in one.parts]
    logits = iter(await scored(service, request, served, served.model.score(token_ids), token_ids))
    data = await asyncio.to_thread(_extractions, served, inputs, logits)
    return json_response(ExtractionList(model=served.card.name, data=data, usage=usage_of(token_ids)))


async def _documents(
    served: ServedModel, texts: Sequence[str], question: str | None, limits: RequestLimits
) -> list[Document]:
    """The texts' tokens; those of the question, if there is one, are found once, and first.

    Raises:
        ApiError: 400, a question that leaves no room for a text, or more characters or tokens than there may be.
    """
    check_num_chars(texts, MAX_DOCUMENT_CHARS, limits, param="input")
    around = None if question is None else await _around(served, question, limits)
    found: list[Document] = []
    for piece in pieces(texts, PIECE_BYTES):
        found += await served.texts.run("text", text_work.encode_documents, piece, around is not None, param="input")
        check_num_tokens([document.token_ids for document in found], limits, param="input")
    return found if around is None else [replace(each, before=around.before, after=around.after) for each in found]


async def _around(served: ServedModel, question: str, limits: RequestLimits) -> Document:
    """What stands around every text."""
    window = served.card.facts.max_model_len
    check_num_chars([question], min(MAX_DOCUMENT_CHARS, max_text_chars(window)), limits, param="question")
    around = await served.texts.run("text", text_work.encode_question, question, param="question")
    if around.room(window) < 1:
        raise too_long("the question has", around.num_around, window - 1, "question")
    return around


def _read(
    texts: Sequence[str], documents: Sequence[Document], window: int, limits: RequestLimits, *, is_owned: bool
) -> list[_Read]:
    """The texts in windows; `is_owned`: each token is answered for by one of them.

    Raises:
        ApiError: 400, a question that leaves too little room for a text, or more tokens in all windows than there may be.
    """
    cut = [_windows(document, window) for document in documents]
    total = sum(
        each.end - each.start + document.num_around
        for document, windows in zip(documents, cut, strict=True)
        for each in windows
    )
    if total > limits.max_request_tokens:
        raise too_long("all of input has", total, limits.max_request_tokens, "input")
    part = Document.owned_part if is_owned else Document.part
    return [
        _Read(index=index, text=text, parts=[part(document, each) for each in windows])
        for index, (text, document, windows) in enumerate(zip(texts, documents, cut, strict=True))
    ]


def _windows(document: Document, window: int) -> list[Window]:
    """The windows of a text, none if it has no tokens."""
    room, overlap = document.room(window), window // OVERLAP_DIVISOR
    if document.num_tokens > room and room <= overlap:
        raise too_long("the question has", document.num_around, window - overlap - 1, "question")
    return document.cut(room=room, overlap=overlap)


def _extractions(served: ServedModel, inputs: Sequence[_Read], logits: Iterator[FloatArray]) -> list[Extraction]:
    return [_extraction(served, one, [next(logits) for _ in one.parts]) for one in inputs]


def _extraction(served: ServedModel, one: _Read, logits: Sequence[FloatArray]) -> Extraction:
    for values in logits:
        check_finite(values)
    if served.card.facts.head == "question-answering":
        answer = find_answer(zip(logits, (part.offsets for part in one.parts), strict=True), one.text)
        return Extraction(
            index=one.index, answer=None if answer is None else ExtractedAnswer.model_validate(asdict(answer))
        )
    if not one.parts:
        return Extraction(index=one.index, spans=[])
    offsets = np.concatenate([part.offsets for part in one.parts])  # [T, 2] over all windows
    tokens = TaggedTokens.of(np.zeros(len(offsets), np.int64), offsets, np.concatenate(logits))
    (spans,) = find_spans(tokens, TagScheme.of(served.card.facts.class_names), [one.text])
    return Extraction(index=one.index, spans=[ExtractedSpan.model_validate(asdict(span)) for span in spans])
