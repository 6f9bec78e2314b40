"""A document's tokens and the characters each stands for, in windows that a single-pass head can take.

What stands around the text (special tokens, a question) is in every window.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from models.text import Encoding
from models.windows import Window, cut_windows

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentPart:
    """A window's token ids [T], with what stands around the text, and the characters [T, 2] of the tokens it answers for; (-1, -1)
    on the others."""

    token_ids: Int32Array
    offsets: Int32Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Token ids [T] and character offsets [T, 2]; those from `first` to `after` (exclusive) are the text's, which windows cut."""

    token_ids: Int32Array
    offsets: Int32Array
    first: int
    after: int

    @classmethod
    def of(cls, encoding: Encoding, *, sequence: int) -> Self:
        """The document whose text is the encoding's first (0) or second (1)."""
        places = [place for place, of in enumerate(encoding.sequence_ids) if of == sequence]
        return cls(
            token_ids=np.array(encoding.ids, np.int32),
            offsets=np.array(encoding.offsets, np.int32).reshape(-1, 2),
            first=places[0] if places else 0,
            after=places[-1] + 1 if places else 0,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of the text alone."""
        return self.after - self.first

    def room(self, window: int) -> int:
        """How many tokens of the text fit in a window of so many tokens."""
        return window - (len(self.token_ids) - self.num_tokens)

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
        start, end = self.first + window.start, self.first + window.end
        token_ids = np.concatenate(
            [self.token_ids[: self.first], self.token_ids[start:end], self.token_ids[self.after :]]
        )
        offsets = np.full((len(token_ids), 2), -1, np.int32)
        shift = self.first - start
        answered = slice(self.first + answered_start, self.first + answered_end)
        offsets[answered.start + shift : answered.stop + shift] = self.offsets[answered]
        return DocumentPart(token_ids=token_ids, offsets=offsets)
