"""A document's tokens and the characters each stands for, in windows that a single-pass head can take.

What stands around the text (special tokens, a question) is in every window.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from models.tasks.windows import Window, cut_windows
from models.text.tokenizer import Encoding

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentPart:
    """A window's token ids [T], with what stands around the text, and the characters [T, 2] of the tokens it answers for; (-1, -1)
    on the others."""

    token_ids: Int32Array
    offsets: Int32Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text's token ids [T] and character offsets [T, 2], which windows cut, and the ids of what stands around it in each
    window."""

    before: Int32Array
    token_ids: Int32Array
    after: Int32Array
    offsets: Int32Array

    @classmethod
    def of(cls, encoding: Encoding, *, sequence: int) -> Self:
        """The document whose text is the encoding's first (0) or second (1)."""
        places = np.flatnonzero([of == sequence for of in encoding.sequence_ids])
        start, end = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        ids = np.array(encoding.ids, np.int32)
        offsets = np.array(encoding.offsets[start:end], np.int32).reshape(-1, 2)
        return cls(before=ids[:start], token_ids=ids[start:end], after=ids[end:], offsets=offsets)

    @property
    def num_tokens(self) -> int:
        """Tokens of the text alone."""
        return len(self.token_ids)

    @property
    def num_around(self) -> int:
        """Tokens that stand around it in every window."""
        return len(self.before) + len(self.after)

    def room(self, window: int) -> int:
        """How many tokens of the text fit in a window of `window` tokens."""
        return window - self.num_around

    def cut(self, *, room: int, overlap: int) -> list[Window]:
        """The windows of the text, none if it has no tokens; `room` is over `overlap` unless all fits."""
        return cut_windows(self.num_tokens, room=room, overlap=0 if self.num_tokens <= room else overlap)

    def part(self, window: Window) -> DocumentPart:
        """A window that answers for all its tokens."""
        return self._part(window, window.start, window.end)

    def owned_part(self, window: Window) -> DocumentPart:
        """A window that leaves to its neighbours the tokens that they own."""
        return self._part(window, window.owned_start, window.owned_end)

    def _part(self, window: Window, answered_start: int, answered_end: int) -> DocumentPart:
        token_ids = np.concatenate([self.before, self.token_ids[window.start : window.end], self.after])
        offsets = np.full((len(token_ids), 2), -1, np.int32)
        shift = len(self.before) - window.start
        offsets[answered_start + shift : answered_end + shift] = self.offsets[answered_start:answered_end]
        return DocumentPart(token_ids=token_ids, offsets=offsets)
