"""Row text that names special tokens and stays text.

A tokenizer turns the string "<|im_end|>" into the token that ends a turn, wherever the string comes from. To keep rows
from speaking in the template's voice, `protect` puts a mark into every such string; a tokenizer whose normalizer begins
with `removal()` finds no special token there and reads the rest of the text as if the mark had never been. Since
special tokens are found before text is normalized, that is all it takes, and the tokens of everything else stay what
they were.

Marks are pairs that begin with a noncharacter: U+FDD0 U+FDD2 stands for nothing, U+FDD0 U+FDD1 for U+FDD0 itself, and
U+FDD0 with a private character for a special token that is one character long and so cannot be broken in two. In text
that was never protected a single U+FDD0 is a character like any other.
"""

import re
from collections.abc import Iterable, Mapping

from tokenizers import Regex, normalizers

MARK = "\ufdd0"
_KEPT = "\ufdd1"
_KEPT_MARK = MARK + _KEPT
_BREAK = MARK + "\ufdd2"
_FIRST_SUBSTITUTE = 0xF0000


class SpecialText:
    """Knows a tokenizer's special strings and how to break them.

    `always` marks every text, for a tokenizer that also finds other spellings of its special strings (in other letter
    case, say): in marked text it finds none but as they are written.
    """

    def __init__(self, strings: Iterable[str], *, always: bool = False) -> None:
        self.strings = frozenset(strings)
        singles = sorted(string for string in self.strings if len(string) == 1)
        longer = sorted(string for string in self.strings if len(string) > 1)
        self._substitutes = {single: MARK + chr(_FIRST_SUBSTITUTE + number) for number, single in enumerate(singles)}
        # How far a text without marks has come after each character of a pair.
        self._pairs: Mapping[str, tuple[int, int]] = {
            _BREAK: (0, 0),
            _KEPT_MARK: (1, 1),
            **dict.fromkeys(self._substitutes.values(), (0, 1)),
        }
        self._first_characters = frozenset(string[0] for string in longer)
        self._starts = re.compile(f"(?=(?:{'|'.join(map(re.escape, longer))}))(.)", re.DOTALL)
        self._beginnings = frozenset(string[:end] for string in longer for end in range(1, len(string)))
        self._endings = frozenset(string[start:] for string in longer for start in range(1, len(string)))
        self._longest = max(map(len, longer), default=0)
        self._end = _BREAK if always else ""

    def protect(self, text: str) -> str:
        """Marks every special string, and the edges of a text that could become part of one beside other text."""
        lengths = range(1, min(self._longest, len(text) + 1))
        before = _BREAK if any(text[:length] in self._endings for length in lengths) else ""
        after = _BREAK if any(text[-length:] in self._beginnings for length in lengths) else self._end
        return before + self._mark_strings(text) + after

    def mark(self, text: str) -> str:
        """Marks every special string of a text that nothing will be put beside."""
        return self._mark_strings(text) + self._end

    def is_marked(self, text: str) -> bool:
        """Whether there is a mark in the text."""
        return MARK in text and any(pair in text for pair in self._pairs)

    def removal(self) -> list[normalizers.Normalizer]:
        """The normalizers that take the marks out again, in this order."""
        substituted = [normalizers.Replace(pair, single) for single, pair in self._substitutes.items()]
        # The mark itself stays where it is: some tokenizers treat what has offset 0 in a way of its own.
        kept = normalizers.Replace(Regex(f"(?<={MARK}){_KEPT}"), "")
        return [normalizers.Replace(_BREAK, ""), *substituted, kept]

    def original_positions(self, marked: str) -> list[int]:
        """For each position in a marked text, its end included, the position in the text before."""
        positions = [0]
        while len(positions) <= len(marked):
            place, count = len(positions) - 1, positions[-1]
            steps = self._pairs.get(marked[place : place + 2], (1,))
            positions += [count + step for step in steps]
        return positions

    def _mark_strings(self, text: str) -> str:
        """Marks special strings, overlapping ones too; without any it returns the text itself."""
        text = text.replace(MARK, _KEPT_MARK)
        for single, pair in self._substitutes.items():
            text = text.replace(single, pair)
        if any(character in text for character in self._first_characters):
            text = self._starts.sub(rf"\1{_BREAK}", text)
        return text


def without_leading_breaks(text: str) -> str:
    """A tokenizer may treat what stands first in a text in a way of its own, so no mark may stand before it."""
    while text.startswith(_BREAK):
        text = text.removeprefix(_BREAK)
    return text
