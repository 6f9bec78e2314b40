"""JSON files that notice when they have been changed: the last key of the object, `seal`, is the hash of all the others.

    content = sealed({"unit": 3, "num_rows": 8})
    unsealed(content)                       # the same mapping; ValueError if a digit of it is another

The hash is of the values as they are written here, so a file that was only laid out anew still counts.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

SEAL = "seal"


def sealed(values: Mapping[str, Any]) -> bytes:
    """`values` as an indented JSON object with its seal."""
    plain: dict[str, Any] = orjson.loads(orjson.dumps(values))
    return orjson.dumps({**plain, SEAL: _seal(plain)}, option=orjson.OPT_INDENT_2)


def unsealed(content: bytes) -> dict[str, Any]:
    """The values of a sealed object, or of one without a seal, as versions before wrote them.

    Raises:
        ValueError: the content is not a JSON object, or not the one that was sealed.
    """
    values = orjson.loads(content)
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    if SEAL in values and values.pop(SEAL) != _seal(values):
        raise ValueError(f"it has been changed: its {SEAL} is that of other values")
    return values


def _seal(values: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(orjson.dumps(values)).hexdigest()
    except TypeError as error:  # nested deeper than anything that is written here
        raise ValueError(f"a run did not write it: {error}") from error
