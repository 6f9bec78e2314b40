"""Result columns of extraction: spans of a token-classification head, or the answer of a question-answering head."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from models.tasks.answers import find_answer
from models.tasks.spans import Int32Array, Span, TaggedTokens, TagScheme, find_spans
from pipelines.job import ExtractTask
from pipelines.rows.rows import ModelRequest
from pipelines.tasks.answered import AnsweredRows

_START, _END = pa.field("start", pa.int64()), pa.field("end", pa.int64())
_LABEL, _TEXT, _SCORE = pa.field("label", pa.string()), pa.field("text", pa.string()), pa.field("score", pa.float32())
SPANS = pa.list_(pa.struct([_START, _END, _LABEL, _TEXT, _SCORE]))
ANSWER = pa.struct([_START, _END, _TEXT, _SCORE])


def extract_fields(task: ExtractTask) -> list["pa.Field[Any]"]:
    """The column of an extraction."""
    return [pa.field("spans", SPANS) if task.question is None else pa.field("answer", ANSWER)]


def extract_columns(task: ExtractTask, tags: Sequence[str], rows: AnsweredRows) -> list["pa.Array[Any]"]:
    """The array of that field; `tags` are the names of a token-classification head's classes."""
    if task.question is None:
        spans = find_spans(_tagged(rows, len(tags)), TagScheme.of(tags), rows.texts)
        return [pa.array([[_span(span) for span in of_row] for of_row in spans], SPANS)]
    answers = [_answer(rows, requests, text) for requests, text in zip(rows.by_row(), rows.texts, strict=True)]
    return [pa.array(answers, ANSWER)]


def _tagged(rows: AnsweredRows, num_tags: int) -> TaggedTokens:
    """Every token of every text, once, with its likeliest tag."""
    offsets = np.concatenate([np.empty((0, 2), np.int32), *map(_offsets, rows.requests)])  # [T, 2] over all requests
    logits = np.concatenate([np.empty((0, num_tags), np.float32), *rows.logits])  # [T, tags]
    lengths = [len(request.token_ids) for request in rows.requests]
    return TaggedTokens.of(np.repeat(rows.rows, lengths), offsets, logits)


def _span(span: Span) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "label": span.label, "text": span.text, "score": span.score}


def _answer(rows: AnsweredRows, requests: slice, text: str) -> dict[str, Any] | None:
    windows = zip(rows.logits[requests], map(_offsets, rows.requests[requests]), strict=True)
    answer = find_answer(windows, text)
    return None if answer is None else asdict(answer)


def _offsets(request: ModelRequest) -> Int32Array:
    assert request.offsets is not None, "a request of an extraction has offsets"
    return request.offsets
