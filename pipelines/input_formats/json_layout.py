"""Whether JSON is laid out in lines, one object each; other layouts are refused with the command that mends them."""

import json
import re
from collections.abc import Callable
from functools import partial

from pipelines.errors import PlanError
from pipelines.input_formats.layout import HEAD_BYTES, check_text

_WHITE = re.compile(r"[ \t\r\n]*")


def check_json_lines(path: str, head: bytes) -> None:
    """Looks at the first bytes, at most `HEAD_BYTES`, of the content of a file of JSON lines.

    Raises:
        PlanError: it is not text in lines, is one JSON array, or holds objects that are spread
            over lines.
    """
    text = check_text(path, head, "jsonl", has_records=_has_records)
    shown = text.decode(errors="replace").strip(" \t\r\n")
    first = shown.partition("\n")[0].strip()
    if shown.startswith("[") and (_is_json_name(path) or not _is_json(first) or (shown == first and "{" in first)):
        raise PlanError(f"{path} holds one JSON array; one object a line is needed, for example with: jq -c '.[]'")
    if shown.startswith("{") and not _is_json(first) and _is_spread(shown):
        raise PlanError(
            f"{path} holds JSON objects spread over several lines; one object a line is needed, for example with: jq -c ."
        )


def _has_records(text: bytes) -> bool:
    return text.lstrip(b" \t\r").startswith(b"{") and len(_values(text.decode(errors="replace"), 2)) == 2


def _is_json_name(path: str) -> bool:
    return path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json")


def _is_spread(shown: str) -> bool:
    """Whether the first objects of the text, at most two, all go over several lines."""
    found = _values(shown, 2)
    if not found:  # longer than what is looked at, or none
        return shown.partition("\n")[0].strip() == "{" and len(shown) >= HEAD_BYTES // 4
    return all(isinstance(json.loads(value), dict) and "\n" in value for value in found)


def _values(text: str, limit: int) -> list[str]:
    """The texts of the first JSON values that stand one after the other, as far as they are JSON."""
    decoder, found, position = json.JSONDecoder(), [], 0
    for _ in range(limit):
        match = _WHITE.match(text, position)
        position = match.end() if match else position
        end = _attempt(partial(_end_of_value, decoder, text, position))
        if end is None:
            break
        found.append(text[position:end])
        position = end
    return found


def _end_of_value(decoder: json.JSONDecoder, text: str, start: int) -> int:
    return decoder.raw_decode(text, start)[1]


def _is_json(text: str) -> bool:
    return _attempt(lambda: json.loads(text) is None or True) is not None


def _attempt(parse: Callable[[], int]) -> int | None:
    try:
        return parse()
    except (ValueError, RecursionError):
        return None
