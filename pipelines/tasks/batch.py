"""A batch file: every row is a request of the HTTP API, whose answer is the row's result.

What may be asked, and what is answered, is the API's own affair (`actors.http`): an engine has its routes. Here is only what a line
must have to be asked at all.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson
import pyarrow as pa

from actors.work import ApiAnswer, ApiCall, Asked, AskedOfApi, digits_of
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError
from pipelines.formats.batch_lines import LINE_KEYS, SUCCESS, answered_line, usage_in
from pipelines.formats.json_line import is_encodable
from pipelines.kinds import INVALID_VALUE, MISSING_VALUE
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.task_base.task import Task, TokenCounts
from pipelines.tasks.generate import GENERATE_UNIT_ROWS

URLS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

_MAX_SHOWN = 64


def _said_in(row: Mapping[str, Any]) -> Said:
    """The messages or texts of an answer's choices; of embeddings their numbers, or their base64 text where that was asked for."""
    body = row["body"]
    if "choices" in body:
        return Said(answers=[choice.get("message", choice.get("text")) for choice in body["choices"]])
    vectors = [item["embedding"] for item in body["data"]]
    if any(isinstance(vector, str) for vector in vectors):
        return Said(answers=vectors)
    return Said(numbers=[number for vector in vectors for number in vector])


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTask(Task):
    """The requests of a batch file, by the routes of the HTTP API. It has no keys: the lines say everything."""

    kind: ClassVar = "batch"
    template_keys: ClassVar = ()
    calls_api: ClassVar = True
    compared: ClassVar = Compared(what="answers of the API", columns=("body",), said_in=_said_in)
    unit_rows: ClassVar = GENERATE_UNIT_ROWS

    def why_no_confidence(self) -> str:
        return "the lines of a batch file ask for what they like"

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        del facts
        return BatchEncoder(tokenizer)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        return [pa.field("line", pa.large_binary())]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        del facts
        lines = [
            answered_line(digits_of(request.seed), custom_id, SUCCESS, _body(answer))
            for request, custom_id, answer in zip(rows.requests, rows.texts, rows.answers, strict=True)
        ]
        return [pa.array(lines, pa.large_binary())]

    def tokens(self, rows: AnsweredRows) -> TokenCounts:
        counts = [usage_in(orjson.loads(answer.body)) for answer in rows.answers if answer.status == SUCCESS]
        prompt, cached, completion = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
        return TokenCounts(prompt=prompt, cached=cached, completion=completion)


def _body(answer: ApiAnswer) -> dict[str, Any]:
    """The body of an answer without what depends on when it was computed: which of its tokens were still cached."""
    body: dict[str, Any] = orjson.loads(answer.body)
    body["usage"].pop("prompt_tokens_details", None)
    return body


class BatchEncoder(RowEncoder):
    """Lines to calls of the API."""

    columns = frozenset(LINE_KEYS)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.asked = Asked(api=AskedOfApi(now=tokenizer.now))

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        seen: set[str] = set()
        found: list[EncodedRow | RowError] = []
        for position, row in enumerate(rows):
            pace.at_template(position)
            found.append(row if isinstance(row, RowError) else _attempt(row, seen))
        return found


def _attempt(row: Row, seen: set[str]) -> EncodedRow | RowError:
    try:
        return _encoded(row, seen)
    except RowError as error:
        return error


def _encoded(row: Row, seen: set[str]) -> EncodedRow:
    """A line as a call, its `custom_id` as the text beside it.

    Raises:
        RowError: it cannot be asked.
    """
    missing = [name for name in LINE_KEYS if name not in row]
    if missing:
        raise RowError(MISSING_VALUE, f"the line has no {', '.join(missing)}; a request has {', '.join(LINE_KEYS)}")
    custom_id, method, url, body = (row[name] for name in LINE_KEYS)
    if not isinstance(custom_id, str) or not is_encodable(custom_id):
        raise _wrong("custom_id", custom_id, "a text")
    if custom_id in seen:
        raise RowError(INVALID_VALUE, f"custom_id was {_shown(custom_id)}, as on a line before; give each its own")
    if method != "POST":
        raise _wrong("method", method, "POST")
    if url not in URLS:
        raise _wrong("url", url, f"{', '.join(URLS[:-1])} or {URLS[-1]}")
    if not isinstance(body, Mapping):
        raise _wrong("body", body, "an object, the body of the request")
    seen.add(custom_id)
    return EncodedRow.of_call(ApiCall(path=url, body=_dumped(body)), custom_id)


def _wrong(key: str, value: Any, allowed: str) -> RowError:
    return RowError(INVALID_VALUE, f"{key} was {_shown(value)}; it must be {allowed}")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _dumped(body: Mapping[str, Any]) -> bytes:
    """A body as it was, NaN and halves of surrogate pairs too: whether they can be, the API says."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()
