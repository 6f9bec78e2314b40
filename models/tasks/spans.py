"""Tagged tokens -> spans of text with character offsets.

Each tag is read on its own, as transformers' token-classification pipeline does (`aggregation_strategy="simple"`): `B-X` begins a span
of X and `I-X` goes on with one, a tag without such a prefix (`MISC`, `[PAD]`) goes on with a span of its own name, and `O` is no span. What
continues nothing begins a span. Beyond that pipeline, `E-`, `L-`, `S-` and `U-` mark the end and single tags of BIOES and BILOU, where a
label has such a tag beside its `B-` or `I-`; otherwise `S-Bahn` and `U-Bahn` are two plain labels.

All tokens of a unit are worked on at once. Knows nothing of windows: each token comes with the one tag that answers for it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

OUTSIDE = "O"
_PREFIXED = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_SPANNING = frozenset("BI")
_BEGINNING = frozenset("BSU")
_ENDING = frozenset("ESLU")


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a row's text; `score` is the mean probability of its tokens' tags."""

    start: int
    end: int
    label: str
    text: str
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TagScheme:
    """What each tag id means: `kinds` [labels] is an index into `labels` or -1 for outside; the tag begins or ends a span [labels]."""

    labels: tuple[str, ...]
    kinds: Int64Array
    begins: BoolArray
    ends: BoolArray

    @classmethod
    def of(cls, tags: Sequence[str]) -> Self:
        """The scheme of a checkpoint's tags, in the order of their ids."""
        parts = _parts(tags)
        prefixes, names = [prefix for prefix, _ in parts], [name for _, name in parts]
        labels = tuple(dict.fromkeys(name for name in names if name != OUTSIDE))
        return cls(
            labels=labels,
            kinds=np.array(
                [labels.index(name) if tag != OUTSIDE else -1 for name, tag in zip(names, tags, strict=True)], np.int64
            ),
            begins=np.array([prefix in _BEGINNING for prefix in prefixes], np.bool_),
            ends=np.array([prefix in _ENDING for prefix in prefixes], np.bool_),
        )


def _parts(tags: Sequence[str]) -> list[tuple[str, str]]:
    """The prefix, perhaps none, and the label of each tag."""
    matches = [_PREFIXED.fullmatch(tag) for tag in tags]
    spanning = {match[2] for match in matches if match and match[1] in _SPANNING}
    has_ends = any(match[1] not in _SPANNING and match[2] in spanning for match in matches if match)
    return [
        (match[1], match[2]) if match and (has_ends or match[1] in _SPANNING) else ("", tag)
        for match, tag in zip(matches, tags, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedTokens:
    """Tokens in order, row after row: the row of each [N], its characters there [N, 2], its tag id [N], the tag's probability [N]."""

    rows: Int64Array
    offsets: Int32Array
    tags: Int64Array
    scores: Float64Array

    @classmethod
    def of(cls, rows: Int64Array, offsets: Int32Array, logits: FloatArray) -> Self:
        """The likeliest tag of each token from logits [T, tags]; tokens with negative offsets [T, 2] are answered for elsewhere."""
        is_answered = offsets[:, 0] >= 0
        values = logits[is_answered].astype(np.float64)  # [N, tags]
        highest = values.max(axis=1, keepdims=True, initial=-np.inf)
        return cls(
            rows=rows[is_answered],
            offsets=offsets[is_answered],
            tags=values.argmax(axis=1),
            scores=1.0 / np.exp(values - highest).sum(axis=1),  # softmax at its highest
        )


def find_spans(tokens: TaggedTokens, scheme: TagScheme, texts: Sequence[str]) -> list[list[Span]]:
    """The spans of each row, in order, without the white space around them; no two share a character."""
    spans: list[list[Span]] = [[] for _ in texts]
    runs = _runs(_with_text(tokens), scheme)
    columns = (runs.rows, runs.starts, runs.ends, runs.kinds, runs.scores)
    for row, start, end, kind, score in zip(*(column.tolist() for column in columns), strict=True):
        taken = spans[row][-1].end if spans[row] else 0
        span = _trimmed(texts[row], max(start, taken), end, scheme.labels[kind], score)
        if span is not None:
            spans[row].append(span)
    return spans


@dataclass(frozen=True, kw_only=True, slots=True)
class _Runs:
    """Neighbouring tokens that make one span, one entry a span [S]."""

    rows: Int64Array
    starts: Int32Array
    ends: Int32Array
    kinds: Int64Array
    scores: Float64Array


def _with_text(tokens: TaggedTokens) -> TaggedTokens:
    """Leaves out tokens that stand for no character."""
    has_text = tokens.offsets[:, 1] > tokens.offsets[:, 0]
    if has_text.all():
        return tokens
    return TaggedTokens(
        rows=tokens.rows[has_text],
        offsets=tokens.offsets[has_text],
        tags=tokens.tags[has_text],
        scores=tokens.scores[has_text],
    )


def _runs(tokens: TaggedTokens, scheme: TagScheme) -> _Runs:
    kinds = scheme.kinds[tokens.tags]  # [N]
    continues = np.zeros(len(kinds), np.bool_)
    continues[1:] = (
        (kinds[1:] == kinds[:-1])
        & (tokens.rows[1:] == tokens.rows[:-1])
        & ~scheme.begins[tokens.tags[1:]]
        & ~scheme.ends[tokens.tags[:-1]]
    )
    inside = kinds >= 0
    first = np.flatnonzero(~continues[inside])  # [S] among the tokens inside; a span's tokens are neighbours there too
    if len(first) == 0:
        return _Runs(
            rows=np.empty(0, np.int64),
            starts=np.empty(0, np.int32),
            ends=np.empty(0, np.int32),
            kinds=np.empty(0, np.int64),
            scores=np.empty(0, np.float64),
        )
    lengths = np.diff(first, append=np.count_nonzero(inside))
    return _Runs(
        rows=tokens.rows[inside][first],
        starts=np.minimum.reduceat(tokens.offsets[inside, 0], first),
        ends=np.maximum.reduceat(tokens.offsets[inside, 1], first),
        kinds=kinds[inside][first],
        scores=np.add.reduceat(tokens.scores[inside], first) / lengths,
    )


def _trimmed(text: str, start: int, end: int, label: str, score: float) -> Span | None:
    """A span without white space around it (tokens of byte-level vocabularies carry the space before a word); None if nothing is left."""
    bounds = trimmed_bounds(text, start, end)
    if bounds is None:
        return None
    start, end = bounds
    return Span(start=start, end=end, label=label, text=text[start:end], score=score)


def trimmed_bounds(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Characters `start` to `end` of a text without the white space around them; None if nothing is left."""
    part = text[start:end]
    stripped = part.strip()
    if not stripped:
        return None
    start += len(part) - len(part.lstrip())
    return start, start + len(stripped)
