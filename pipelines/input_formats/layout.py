"""What a file is, told from its first bytes, where it is not what its name says or text is not laid out in lines.

Other layouts are refused with the command that mends them. Nothing here guesses what a damaged record was meant to be: a file is
refused only where its layout shows.
"""

import posixpath
from collections.abc import Callable
from typing import Literal

from pipelines.errors import PlanError
from pipelines.io.decompress import Compression

HEAD_BYTES = 1 << 20

_GZIP, _ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
ARROW_FILE, ARROW_STREAM = b"ARROW1", b"\xff\xff\xff\xff"
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
    (ARROW_FILE, "an Arrow file"),
    (ARROW_STREAM, "an Arrow stream"),
    (b"FEA1", "Feather of version 1"),
    (b"SQLite format 3", "a SQLite database"),
)
_ENDINGS = {"gzip": ".gz", "zstd": ".zst"}
_NAMES = {"Parquet": "parquet", "an Arrow file": "arrow", "an Arrow stream": "arrow"}
_KINDS = {"Arrow": ("an Arrow file", "an Arrow stream")}
_LAST = {"Parquet": PARQUET, "an Arrow file": ARROW_FILE}
_SKIPPED_FRAME = b"\x2a\x4d\x18"
_UTF = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BOM = b"\xef\xbb\xbf"


def binary_kind(head: bytes) -> str | None:
    """What the first bytes of a file say it is, None for what may be text."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def why_unreadable(path: str, head: bytes, tail: bytes, kind: Compression | Literal["Parquet", "Arrow"]) -> str | None:
    """What is wrong with a file of `kind` that cannot be read, if its first and last few bytes tell."""
    found = binary_kind(head)
    if not head:
        reason = (
            f"it is empty (0 bytes), which no {kind} file is: writing it did not finish; write it again, or take it out "
            "of the input if it was to hold no rows"
        )
    elif found is not None and found not in _KINDS.get(kind, (kind,)):
        reason = f"it is {found}, though its name or input.format says {kind}; {_remedy(path, found, kind)}"
    elif found is None and not (kind == "zstd" and head[1:4] == _SKIPPED_FRAME):
        magic = "no magic bytes" if kind in ("Parquet", "Arrow") else "an incorrect header"
        reason = f"it is no {kind}: {magic} at its start, {head[:8]!r}; {_remedy(path, found, kind)}"
    elif found in _LAST and not tail.endswith(_LAST[found]):
        last = _LAST[found]
        reason = f"it is cut off: {found} ends with {last!r}, and it ends with {tail[-len(last) :]!r}; write or copy it again"
    else:
        return None
    return f"cannot read {path}: {reason}"


def check_text(path: str, head: bytes, format: str, *, has_records: Callable[[bytes], bool]) -> bytes:
    """Looks at the first bytes, at most `HEAD_BYTES`, of a text file's content, and returns them without a byte order mark.

    `has_records` says of text without any newline whether it is several records, and not one with carriage returns for white space.

    Raises:
        PlanError: it is binary, in another encoding, or ends its lines with carriage returns.
    """
    kind = binary_kind(head)
    if kind is not None:
        raise PlanError(f"{path} is {kind}, though its name or input.format says {format}; {_remedy(path, kind)}")
    encoding = next((name for mark, name in _UTF if head.startswith(mark)), None) or _encoding_without_mark(head)
    if encoding is not None:
        raise PlanError(f"{path} is {encoding}; convert it to UTF-8, for example with: iconv -f {encoding} -t UTF-8")
    text = head.removeprefix(_BOM)
    if b"\r" in text and b"\n" not in text and has_records(text):
        raise PlanError(
            f"{path} ends its lines with carriage returns alone; convert it, for example with: tr '\\r' '\\n' < FILE"
        )
    return text


def _remedy(path: str, found: str | None, kind: str | None = None) -> str:
    name = posixpath.basename(path)
    bare = posixpath.splitext(name)[0] if kind is not None else name
    if found in ("gzip", "zstd"):
        return f"rename it to {bare}{_ENDINGS[found]}, or decompress it (twice if it was compressed twice)"
    if found in _NAMES:
        name = _NAMES[found]
        return f"rename it to {posixpath.splitext(bare)[0]}.{name}, and set input.format: {name} if it is set at all"
    if found is None:
        return (
            f"if it is text that is not compressed, rename it to {bare}"
            if kind not in ("Parquet", "Arrow")
            else "rename it by what it is"
        )
    return "convert it to Parquet"


def _encoding_without_mark(head: bytes) -> str | None:
    """UTF-16 of mostly ASCII characters has a zero in every other byte, which no text in UTF-8 has."""
    start = head[:64]
    if len(start) < 4 or b"\x00" not in start:
        return None
    odd, even = start[1::2], start[::2]
    if not any(odd):
        return "UTF-16LE"
    return "UTF-16BE" if not any(even) else None
