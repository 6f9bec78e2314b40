"""The text of a request while its tokens arrive, cut at the first stop string."""

from collections.abc import Sequence

from models.text.tokenizer import Tokenizer


class TextTracker:
    """Detokenizes one request as it goes. `text` is what has been delivered; it never holds a stop string, nor the
    beginning of one that later completes."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._detokenizer = tokenizer.detokenizer()
        self._stop = tuple(stop)
        self._held = ""  # decoded, but it could be the beginning of a stop string
        self.text = ""
        self.is_stopped = False

    def push(self, token_ids: Sequence[int], *, is_last: bool, may_stop: bool) -> str:
        """Takes in new tokens and returns the text that is now certain, everything if `is_last`. Stop strings count
        only when `may_stop`."""
        self._held += self._detokenizer.push(token_ids)
        if is_last:
            self._held += self._detokenizer.finish()
        cut = self._first_stop() if may_stop else None
        if cut is not None:
            self.is_stopped = True
            certain = self._held[:cut]
        else:
            certain = self._held if is_last else self._held[: len(self._held) - self._num_doubtful()]
        self._held = self._held[len(certain) :]
        self.text += certain
        return certain

    def _first_stop(self) -> int | None:
        found = [place for place in (self._held.find(stop) for stop in self._stop) if place >= 0]
        return min(found, default=None)

    def _num_doubtful(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
