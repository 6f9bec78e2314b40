"""Which characters of a text a tokenizer's normalizer folds into one, so that a token covers all that it was made of.

Of characters that a normalizer puts together (`e` and a combining accent, the letters of a Hangul syllable, `...` that becomes one sign)
the tokenizers library aligns what comes out with one alone: a span that ends there would lose its accent.

A text may be cut at a place where normalizing both sides on their own gives what normalizing the
whole gives. What lies between two such places is a fold, and a span that covers part of a fold
covers all of it. A combining mark that the normalizer takes away belongs to the character it
stands on. Only places near combining marks, and near characters that no token covers, are looked
at.
"""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from tokenizers.normalizers import Normalizer

Offset = tuple[int, int]

_CONTEXT = 32  # characters on each side of a place that decide whether a text may be cut there
_CACHED_STRETCHES = 1 << 14
# Stands around a text that is normalized for a test: no normalizer joins it to anything, takes it away or puts something beside it.
_GUARD = "0"


class Folds:
    """The folds of one normalizer; without a normalizer (None) every character is a fold of its
    own."""

    def __init__(self, normalizer: Normalizer | None) -> None:
        self._normalizer = normalizer
        self._before = "" if normalizer is None else normalizer.normalize_str(_GUARD)
        self._cuts = lru_cache(_CACHED_STRETCHES)(self._find_cuts)

    def may_be_in(self, text: str) -> bool:
        """Whether the normalizer changes the text at all."""
        return self._normalizer is not None and self._normalizer.normalize_str(text) != text

    def widen(self, text: str, offsets: Sequence[Offset]) -> list[Offset]:
        """Offsets of tokens in a text that is changed, those that cover part of a fold widened to all of it. Empty ones stay."""
        starts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for start, end in self._folds(text, _uncovered(text, offsets)):
            starts |= dict.fromkeys(range(start, end), start)
            ends |= dict.fromkeys(range(start + 1, end + 1), end)
        if not starts:
            return list(offsets)
        return [
            (starts.get(start, start), ends.get(end, end)) if end > start else (start, end) for start, end in offsets
        ]

    def _folds(self, text: str, uncovered: set[int]) -> Iterator[Offset]:
        """The folds of more than one character."""
        for start, end in _stretches(_doubtful(text, uncovered)):
            find_cuts = self._cuts if end - start <= _CONTEXT else self._find_cuts
            borders = [start, *(start + cut for cut in find_cuts(text[start:end])), end]
            yield from (pair for pair in itertools.pairwise(borders) if pair[1] - pair[0] > 1)

    def _find_cuts(self, stretch: str) -> tuple[int, ...]:
        return tuple(place for place in range(1, len(stretch)) if self._can_cut(stretch, place))

    def _can_cut(self, stretch: str, place: int) -> bool:
        before, after = stretch[max(0, place - _CONTEXT) : place], stretch[place : place + _CONTEXT]
        if _is_mark(after[0]) and not self._normalized(after[0]):
            return False
        return self._normalized(before) + self._normalized(after) == self._normalized(before + after)

    def _normalized(self, part: str) -> str:
        """What the normalizer makes of a part of a text, without what it does at a text's ends."""
        assert self._normalizer is not None
        guarded: str = self._normalizer.normalize_str(f"{_GUARD}{part}{_GUARD}")
        return guarded.removeprefix(self._before).removesuffix(_GUARD)


def _uncovered(text: str, offsets: Sequence[Offset]) -> set[int]:
    """The places that no token covers, except for white space, which is often left out."""
    is_covered = bytearray(len(text))
    for start, end in offsets:
        is_covered[start:end] = b"\1" * (end - start)
    if 0 not in is_covered:
        return set()
    return {place for place, covered in enumerate(is_covered) if not covered and not text[place].isspace()}


def _doubtful(text: str, uncovered: set[int]) -> list[int]:
    """The places, in order, before which a text perhaps may not be cut."""
    marks = set() if text.isascii() else {place for place, character in enumerate(text) if _is_mark(character)}
    after = {place + 1 for place in uncovered - marks}
    return sorted(place for place in marks | uncovered | after if 0 < place < len(text))


def _stretches(doubtful: Sequence[int]) -> Iterator[Offset]:
    """The longest runs of characters with only doubtful places between them."""
    start = end = 0
    for place in doubtful:
        if place != end:
            if end > start:
                yield start, end
            start = place - 1
        end = place + 1
    if end > start:
        yield start, end


def _is_mark(character: str) -> bool:
    """Whether a character belongs to the one before it: combining marks, and the later letters of a Hangul syllable."""
    return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff"
