"""JSON lines, parsed: one line in Python, or a whole block of them in C++ by pyarrow.

A line is parsed by orjson, and by the standard library where that is more exact or more lenient: integers of any size, `NaN` and
`Infinity`, and escapes of lone surrogates, which no UTF-8 text can hold and which become U+FFFD. Of a name given twice the last
value counts.
"""

import json
import re
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json as pj

from pipelines.errors import RowError

_MANY_DIGITS = re.compile(rb"\d{19}")
_OPEN, _CLOSE, _NEWLINE, _CARRIAGE_RETURN = b"{}\n\r"


def parse_line(line: bytes) -> Any:
    """The JSON value of a line.

    Raises:
        RowError: `invalid_utf8` or `malformed_json`.
    """
    if not has_many_digits(line):
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            pass  # the standard library has the last word
    try:
        return without_surrogates(json.loads(line.decode()))
    except UnicodeDecodeError as error:
        raise RowError("invalid_utf8", f"byte {line[error.start]:#04x} at place {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise RowError("malformed_json", "the JSON value is nested too deep") from error
    except ValueError as error:
        raise RowError("malformed_json", f"the line is not JSON: {error}") from error


def has_many_digits(line: bytes) -> bool:
    """Whether the line may hold a number that orjson would round."""
    return _MANY_DIGITS.search(line) is not None


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        RowError: `invalid_utf8`, `malformed_json` or `not_an_object`.
    """
    value = parse_line(line)
    if isinstance(value, dict):
        return value
    found = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}.get(type(value), "null")
    raise RowError("not_an_object", f"the line is a JSON {found}; a row must be an object of column names and values")


def without_surrogates(value: Any) -> Any:
    """The JSON value with U+FFFD for every surrogate that is not half of a pair."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    return value


def is_utf8(text: bytes) -> bool:
    """Whether all of `text` is valid UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_one_object_a_line(text: bytes) -> int | None:
    """The number of lines if every one starts with `{` and ends with `}`, and all is UTF-8; else None.

    Between such lines no object can go on: after `}`, JSON wants a comma or a closing bracket before the next `{`, and strings hold
    no newline. So if pyarrow makes as many rows of them as there are lines, each row is one line. (And pyarrow 26 crashes on text
    whose first value is null, which this keeps from it.)
    """
    chars = np.frombuffer(text, dtype=np.uint8)
    newlines = np.flatnonzero(chars == _NEWLINE)
    if text.endswith(b"\n"):
        newlines = newlines[:-1]
    starts = np.concatenate(([0], newlines + 1))
    lasts = np.concatenate((newlines - 1, [len(text.rstrip(b"\r\n")) - 1]))
    if (lasts < starts).any():
        return None
    lasts = np.where(chars[lasts] == _CARRIAGE_RETURN, lasts - 1, lasts)
    if (chars[starts] != _OPEN).any() or (chars[lasts] != _CLOSE).any() or not is_utf8(text):
        return None
    return len(starts)


def parse_block(text: bytes, schema: pa.Schema | None) -> pa.Table | None:
    """Parses lines that `is_one_object_a_line` has passed: into `schema`, names outside of it ignored, or with types inferred.

    Returns None where pyarrow refuses anything in it.
    """
    options = pj.ParseOptions()
    if schema is not None:
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    read = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)
    source: Any = pa.BufferReader(text)
    try:
        return pj.read_json(source, read_options=read, parse_options=options)
    except pa.ArrowException:
        return None
