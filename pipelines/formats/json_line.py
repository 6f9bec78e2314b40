"""JSON lines, parsed one by one to exactly what the standard library's `json.loads` makes of them.

orjson parses a line wherever it is as exact: not integers over 64 bits, `NaN` and the infinities, nor halves of surrogate pairs.
Of a name given twice the last value counts, as in the standard library.
"""

import json
from typing import Any

import orjson

from pipelines.errors import RowError

MAX_DEPTH = 200
"""How deep a row may nest, itself included: less than what orjson (254) and Python's recursion limit let through."""

_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_MANY_DIGITS = b"0" * 19  # a shorter integer fits 64 bits
_SURROGATE_NAME = (
    "a column name holds half of a surrogate pair, which no output can; write the name in whole characters"
)


def parse_line(line: bytes) -> Any:
    """The JSON value of a line.

    Raises:
        RowError: `invalid_utf8` or `malformed_json`.
    """
    return _parse(line)[0]


def _parse(line: bytes) -> tuple[Any, bool]:
    """The JSON value of a line, and whether it holds nothing but what orjson writes as well."""
    if _MANY_DIGITS not in line.translate(_DIGITS_AS_ZEROS):
        try:
            return orjson.loads(line), True
        except orjson.JSONDecodeError:
            pass  # the standard library has the last word
    try:
        return json.loads(line.decode()), False
    except UnicodeDecodeError as error:
        raise RowError("invalid_utf8", f"byte {line[error.start]:#04x} at place {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise RowError("malformed_json", f"the line is not JSON: {error}") from error


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        RowError: `invalid_utf8`, `malformed_json` or `not_an_object`.
    """
    return parse_row(line)[0]


def parse_row(line: bytes) -> tuple[dict[str, Any], bool]:
    """The JSON object of a line, and whether orjson writes all that is in it as it was.

    Raises:
        RowError: `invalid_utf8`, `malformed_json` or `not_an_object`.
    """
    value, is_plain = _parse(line)
    if not isinstance(value, dict):
        found = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}.get(type(value), "null")
        raise RowError(
            "not_an_object", f"the line is a JSON {found}; a row must be an object of column names and values"
        )
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep()
    if not is_plain and not all(map(is_encodable, value)):
        raise RowError("invalid_utf8", _SURROGATE_NAME)
    return value, is_plain


def _too_deep() -> RowError:
    return RowError(
        "malformed_json", f"the row is nested over {MAX_DEPTH} deep; flatten it, or write the value as text"
    )


def _depth(value: Any) -> int:
    """How many objects and arrays stand inside one another."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in inner if isinstance(item, dict | list)]
    return depth


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_utf8(text: bytes) -> bool:
    """Whether all of `text` is valid UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
