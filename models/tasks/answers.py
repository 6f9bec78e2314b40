"""Question answering: start and end logits of a document's windows -> its answer, or none.

As SQuAD 2 is evaluated: an answer is the pair of text tokens, the end not before the start and at most `MAX_ANSWER_TOKENS` tokens long,
with the highest sum of start and end logit over all windows. No answer has the sum at the first token (the classification token where
the vocabulary has one, else the question's first token); the lowest such sum of all windows counts, and wins only if it is higher.

The score is a probability within the window where the answer was found: softmax of the start logits at the start, times softmax of the
end logits at the end, both over that window's text tokens and its first token. It does not change with how many windows there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.tasks.spans import trimmed_bounds

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

MAX_ANSWER_TOKENS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Characters `start` to `end` (exclusive) of a row's text, and their probability as the answer."""

    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    """A window's best answer: its logits' sum, that of no answer, characters and probability."""

    logit: float
    null_logit: float
    start: int
    end: int
    score: float


def find_answer(windows: Iterable[tuple[FloatArray, Int32Array]], text: str) -> Answer | None:
    """A document's answer from each window's logits [T, 2] (start, end) and character offsets [T, 2], (-1, -1) on what is not text.

    None if no answer is more likely than one, or the answer would be white space.
    """
    candidates = [candidate for logits, offsets in windows if (candidate := _best(logits, offsets)) is not None]
    if not candidates:
        return None
    best = max(candidates, key=lambda candidate: candidate.logit)  # the first of equals
    if min(candidate.null_logit for candidate in candidates) > best.logit:
        return None
    bounds = trimmed_bounds(text, best.start, best.end)
    if bounds is None:
        return None
    start, end = bounds
    return Answer(start=start, end=end, text=text[start:end], score=best.score)


def _best(logits: FloatArray, offsets: Int32Array) -> _Candidate | None:
    is_text = offsets[:, 1] > offsets[:, 0]  # [T]
    if not is_text.any():
        return None
    first, after = int(np.argmax(is_text)), len(is_text) - int(np.argmax(is_text[::-1]))
    excluded = np.where(is_text[first:after], 0.0, -np.inf)[:, None]
    scores = logits[first:after].astype(np.float64) + excluded  # [C, 2]
    start, length = _best_pair(scores[:, 0], scores[:, 1])
    null = logits[0].astype(np.float64)  # [2]
    return _Candidate(
        logit=float(scores[start, 0] + scores[start + length, 1]),
        null_logit=float(null[0] + null[1]),
        start=int(offsets[first + start, 0]),
        end=int(offsets[first + start + length, 1]),
        score=_probability(scores[:, 0], null[0], start) * _probability(scores[:, 1], null[1], start + length),
    )


def _best_pair(starts: Float64Array, ends: Float64Array) -> tuple[int, int]:
    """The start, and the number of tokens from it to the end, of the highest sum; the first of equals."""
    num_ends = min(MAX_ANSWER_TOKENS, len(ends))
    padded = np.concatenate([ends, np.full(num_ends - 1, -np.inf)])
    sums = starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, num_ends)  # [C, M]
    start, length = divmod(int(np.argmax(sums)), num_ends)
    return start, length


def _probability(scores: Float64Array, null_score: float, index: int) -> float:
    """Softmax over `scores` and `null_score`, at `index`."""
    highest = max(float(scores.max()), null_score)
    total = np.exp(scores - highest).sum() + np.exp(null_score - highest)
    return float(np.exp(scores[index] - highest) / total)
