"""A value of a stranger's file, as an error shows it: what it begins with, however long and deep it is."""

from reprlib import Repr
from typing import Any

_MAX_CHARS = 200
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 120
_REPR.maxlevel = 3


def shown(value: Any) -> str:
    """In Python's words, cut where it is long."""
    return cut(_REPR.repr(value))


def cut(text: str) -> str:
    """A text as it is, or what it begins with."""
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."
