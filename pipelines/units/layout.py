"""What a file is, told from its first bytes, where it is not what its name says or no records can be found in it.

Millrace reads one JSON object a line, CSV with a header, and Parquet; other layouts are refused with the command that mends them.
Nothing here guesses what a damaged record was meant to be: a file is refused only where its layout shows.
"""

import json
import posixpath
import re
from collections.abc import Callable
from functools import partial
from typing import Literal

from pipelines.errors import PlanError
from pipelines.io.decompress import Compression
from pipelines.rows.unit import Format

HEAD_BYTES = 1 << 20

_GZIP, _ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_MAGIC = (
    (_GZIP, "gzip"),
    (_ZSTD, "zstd"),
    (PARQUET, "Parquet"),
    (b"PARE", "encrypted Parquet"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "a zip archive"),
    (b"Obj\x01", "Avro"),
    (b"ORC", "ORC"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "a SQLite database"),
)
_ENDINGS = {"gzip": ".gz", "zstd": ".zst"}
_SKIPPED_FRAME = b"\x2a\x4d\x18"
_UTF = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BOM = b"\xef\xbb\xbf"
_WHITE = re.compile(r"[ \t\r\n]*")


def binary_kind(head: bytes) -> str | None:
    """What the first bytes of a file say it is, None for what may be text."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def why_unreadable(path: str, head: bytes, tail: bytes, kind: Compression | Literal["Parquet"]) -> str | None:
    """What is wrong with a file of `kind` that cannot be read, if its first and last few bytes tell."""
    found = binary_kind(head)
    if not head:
        reason = (
            f"it is empty (0 bytes), which no {kind} file is: whoever wrote it did not finish; write it again, or take it out of the "
            "input if it was to hold no rows"
        )
    elif found is not None and found != kind:
        reason = f"it is {found}, though its name or input.format says {kind}; {_remedy(path, found, kind)}"
    elif found is None and not (kind == "zstd" and head[1:4] == _SKIPPED_FRAME):
        magic = "no magic bytes" if kind == "Parquet" else "an incorrect header"
        reason = f"it is no {kind}: {magic} at its start, {head[:8]!r}; {_remedy(path, found, kind)}"
    elif kind == "Parquet" and tail[-4:] != PARQUET:
        reason = f"it is cut off: Parquet ends with {PARQUET!r}, and it ends with {tail[-4:]!r}; write or copy it again"
    else:
        return None
    return f"cannot read {path}: {reason}"


def check_text(path: str, head: bytes, format: Format) -> None:
    """Looks at the first bytes, at most `HEAD_BYTES`, of a text file's content.

    Raises:
        PlanError: it is binary, in another encoding, or not laid out in records.
    """
    kind = binary_kind(head)
    if kind is not None:
        raise PlanError(f"{path} is {kind}, though its name or input.format says {format}; {_remedy(path, kind)}")
    encoding = next((name for mark, name in _UTF if head.startswith(mark)), None) or _encoding_without_mark(head)
    if encoding is not None:
        raise PlanError(f"{path} is {encoding}; convert it to UTF-8, for example with: iconv -f {encoding} -t UTF-8")
    text = head.removeprefix(_BOM)
    if b"\r" in text and b"\n" not in text and _has_records(text, format):
        raise PlanError(
            f"{path} ends its lines with carriage returns alone; convert it, for example with: tr '\\r' '\\n' < FILE"
        )
    if format == "jsonl":
        _check_lines(path, text)


def _remedy(path: str, found: str | None, kind: str | None = None) -> str:
    name = posixpath.basename(path)
    bare = posixpath.splitext(name)[0] if kind is not None else name
    if found in ("gzip", "zstd"):
        return f"rename it to {bare}{_ENDINGS[found]}, or decompress it (twice if it was compressed twice)"
    if found == "Parquet":
        return f"rename it to {posixpath.splitext(bare)[0]}.parquet, and set input.format: parquet if it is set at all"
    if found is None:
        return (
            f"if it is text that is not compressed, rename it to {bare}"
            if kind != "Parquet"
            else "rename it by what it is"
        )
    return "convert it to Parquet, JSONL or CSV"


def _encoding_without_mark(head: bytes) -> str | None:
    """UTF-16 of mostly ASCII characters has a zero in every other byte, which no text in UTF-8 has."""
    start = head[:64]
    if len(start) < 4 or b"\x00" not in start:
        return None
    odd, even = start[1::2], start[::2]
    if not any(odd):
        return "UTF-16LE"
    return "UTF-16BE" if not any(even) else None


def _has_records(text: bytes, format: Format) -> bool:
    """Whether text without any newline is several records, and not one with carriage returns for white space."""
    if format == "csv":
        return text.rstrip(b"\r").count(b"\r") > 0
    return text.lstrip(b" \t\r").startswith(b"{") and len(_values(text.decode(errors="replace"), 2)) == 2


def _check_lines(path: str, text: bytes) -> None:
    """Refuses JSON that is one array, or objects that are spread over lines."""
    shown = text.decode(errors="replace").strip(" \t\r\n")
    first = shown.partition("\n")[0].strip()
    if shown.startswith("[") and (_is_json_name(path) or not _is_json(first) or (shown == first and "{" in first)):
        raise PlanError(f"{path} holds one JSON array; one object a line is needed, for example with: jq -c '.[]'")
    if shown.startswith("{") and not _is_json(first) and _is_spread(shown):
        raise PlanError(
            f"{path} holds JSON objects spread over several lines; one object a line is needed, for example with: jq -c ."
        )


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
