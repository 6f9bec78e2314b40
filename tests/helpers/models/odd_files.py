"""Files of a checkpoint that somebody spoiled: valid ones, with values replaced, dropped, renamed, nested or grown, or bytes flipped."""

import copy
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

NESTED = json.loads("[" * 300 + "]" * 300)
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 4096, 4097, 65_537, 1_000_000, 2**31, 2**40, 2**63, 2**64,
    10**12, 10**15, 10**18, 10**400, -(10**400),
    0.0, -0.0, 0.5, 1e-320, 1e30, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
    "", " ", "\0", "\ud800", "\x1b]0;owned\x07", "\u202e", "../../etc/passwd", "/etc/passwd",
    "x" * 5000, "[^a", "(?:", "a{1,100000}", "$A $B",
    "BPE", "WordPiece", "Unigram", "WordLevel", "ByteLevel", "Sequence", "Replace", "Precompiled", "AAAA", "float32", "I8", "U8", "F8_E4M3",
    [], {}, [None], [0], [[]], {"": None}, {"a": {"a": {"a": []}}}, [0] * 1000, ["a"] * 1000, {str(n): "x" for n in range(1000)}, NESTED,
]  # fmt: skip

odd_values = st.sampled_from(ODD).map(copy.deepcopy) | st.integers() | st.floats() | st.text(max_size=8)


@st.composite
def spoiled(draw: Callable[..., Any], value: Any, names: Sequence[str] = ()) -> Any:
    """A JSON value with one to four things wrong in it; `names` are keys that may be added."""
    root = [json.loads(json.dumps(value))]
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(root))
        holder, key = draw(st.sampled_from(places))
        _spoil(draw, holder, key, names)
    return root[0] if root else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))[:300]
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list) and item and item != NESTED:
            yield from _places(item)


def _spoil(draw: Callable[..., Any], holder: Any, key: Any, names: Sequence[str]) -> None:
    how = draw(st.sampled_from(["replace", "replace", "replace", "drop", "add", "wrap", "rename"]))
    if how == "drop" and not (isinstance(holder, list) and len(holder) == 1):
        del holder[key]
    elif how == "add":
        value = draw(odd_values)
        if isinstance(holder, dict):
            holder[draw(st.sampled_from([*names, "", "x"]))] = value
        else:
            holder.append(value)
    elif how == "wrap":
        holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}, [holder[key]] * 3]))
    elif how == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from([*holder, *names, "x"]))] = holder.pop(key)
    else:
        holder[key] = draw(odd_values)


@st.composite
def flipped(draw: Callable[..., Any], content: bytes) -> bytes:
    """The content cut short, or with some bytes replaced or put in."""
    kind = draw(st.sampled_from(["cut", "flip", "insert"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content)))]
    out = bytearray(content)
    for place, byte in draw(
        st.lists(st.tuples(st.integers(0, len(out) - 1), st.integers(0, 255)), min_size=1, max_size=8)
    ):
        out[place : place + (kind == "flip")] = bytes([byte])
    return bytes(out)


def as_json(value: Any) -> bytes:
    """JSON text, as Python writes it: NaN and half surrogate pairs too."""
    return json.dumps(value).encode()


def safetensors_head(header: bytes, *, size: int | None = None) -> bytes:
    """The beginning of a file with this header, which says that it has `size` bytes (None: as many as it has)."""
    return struct.pack("<Q", len(header) if size is None else size) + header
