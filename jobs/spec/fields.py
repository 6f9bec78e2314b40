"""Kinds of values that parts of a spec share beside those that tasks have too (`pipelines.task_base.yaml`)."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from jobs.errors import shown
from pipelines.task_base.yaml import MAX_COUNT, Text

MAX_BYTES = 2**63 - 1
MAX_PATH_BYTES, MAX_NAME_BYTES = 4095, 255  # Linux's own

FILE = "file://"
_HALF_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
NAME_TEXT = "1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"


def _checked_path(path: str) -> str:
    fault = _fault_of(path)
    if fault:
        raise ValueError(f"was {shown(path)}; {fault}")
    return path


def _fault_of(path: str) -> str:
    if "\0" in path:
        return "no path holds the character U+0000"
    if _HALF_URL.match(path):
        return "a URL has two slashes after its scheme; a folder of this name is written with ./ before it"
    if path.startswith("://"):
        return "a URL begins with its scheme, such as s3://"
    local = path.removeprefix(FILE)
    if not local:
        return "it must name a file or folder after the scheme"
    names = [] if "://" in local else local.split("/")
    if any(len(name.encode()) > MAX_NAME_BYTES for name in names) or len(local.encode()) > MAX_PATH_BYTES:
        return (
            f"no file has so long a path (at most {MAX_PATH_BYTES:,} bytes, and {MAX_NAME_BYTES} between two slashes)"
        )
    return ""


Place = Annotated[Text, AfterValidator(_checked_path)]
"""A path, pattern or URL."""
Name = Annotated[str, Field(pattern=NAME)]


def absolute(path: str) -> str:
    """A local path as workers in other directories can open it; a URL as it is."""
    path = path.removeprefix(FILE)
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - keeps patterns


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number from `least` to the most that anything is counted to."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT
