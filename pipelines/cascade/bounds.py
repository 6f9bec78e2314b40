"""The lowest score whose answers are right often enough, and how sure that is.

Answers with a score of at least a bound are kept. Whether so many of them are right as is asked is a test of one hypothesis with an
exact binomial: of the n answers kept in a sample k are right, and the lower end of their share's one-sided interval (Clopper and
Pearson, 1934) has to reach what is asked. Of several bounds in an order that the tested rows have no say in, each is tested at the
full level as long as all before it have passed, and the last to pass is taken: fixed-sequence testing, as in Angelopoulos et al.,
Learn then Test (2021), section on split fixed-sequence testing. So the chance that a bound is given whose answers are right less often
than is asked is at most 1 - confidence, however many bounds are tried. That is true of rows drawn from what the sample was drawn from.

A part of the rows settles which bounds are tried, from the one that the rest is likeliest to prove down to the lowest; the rest
tests them. Everything is counted, nothing approximated.
"""

from dataclasses import dataclass
from functools import cache
from math import log

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

DESIGN_SHARE = 0.25
"""Of the rows, those that settle which bounds are tried."""
MAX_CANDIDATES = 50
_BISECTIONS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A bound that was tested: of `num_kept` rows with a score of at least `bound`, `num_right` were right; `least` is what share of all
    such rows is right at least, with the confidence asked."""

    bound: float
    num_kept: int
    num_right: int
    least: float

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_kept if self.num_kept else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What testing came to on `num_rows` rows: the lowest bound that passed, None if none did; and the first that did not, None where
    all did, or there were no rows to settle what to try."""

    num_rows: int
    passed: Tried | None
    failed: Tried | None


def find_bound(scores: FloatArray, is_right: BoolArray, *, accuracy: float, confidence: float, seed: int = 0) -> Search:
    """The lowest bound whose answers are right in a share of `accuracy` with `confidence`, from the scores of answers [N] and whether
    they are right [N]. `seed` draws which rows settle what is tried."""
    order = np.random.default_rng(seed).permutation(len(scores))
    num_design = round(DESIGN_SHARE * len(scores))
    design, rest = order[:num_design], order[num_design:]
    passed = failed = None
    for bound in _candidates(scores[design], is_right[design], len(rest), accuracy, confidence):
        is_kept = scores[rest] >= np.float32(bound)
        counts = bound, int(is_kept.sum()), int((is_kept & is_right[rest]).sum())
        if counts[2] < least_right(counts[1], accuracy, confidence):
            failed = counts
            break
        passed = counts
    return Search(
        num_rows=len(rest),
        passed=None if passed is None else _tried(*passed, confidence),
        failed=None if failed is None else _tried(*failed, confidence),
    )


def _tried(bound: float, num_kept: int, num_right: int, confidence: float) -> Tried:
    least = lower_end(num_right, num_kept, confidence)
    return Tried(bound=bound, num_kept=num_kept, num_right=num_right, least=least)


def _candidates(
    scores: FloatArray, is_right: BoolArray, num_tested: int, accuracy: float, confidence: float
) -> list[float]:
    """The bounds that are tried on `num_tested` other rows, from the one that they are likeliest to prove down, by the rows given [N]."""
    bounds = _spread(scores)
    if not bounds:
        return []
    chances = []
    for bound in bounds:
        is_kept = scores >= np.float32(bound)
        num_kept = int(is_kept.sum())
        expected = round(num_tested * num_kept / len(scores))
        likely = (int((is_kept & is_right).sum()) + 1) / (num_kept + 2)  # Laplace's rule: a few right ones prove little
        chances.append(upper_tail(least_right(expected, accuracy, confidence), expected, likely))
    return bounds[int(np.argmax(chances)) :]


def _spread(scores: FloatArray) -> list[float]:
    """At most `MAX_CANDIDATES` of the scores over 0, descending, in six decimals, down: a bound keeps the score it was
    made from, unless that is under the least number of six decimals."""
    kept = np.unique(scores[scores > 0])[::-1]
    if len(kept) > MAX_CANDIDATES:
        kept = kept[np.linspace(0, len(kept) - 1, MAX_CANDIDATES).round().astype(np.int64)]
    return list(dict.fromkeys(_rounded_down(float(score)) for score in kept))


def _rounded_down(score: float) -> float:
    return max(float(np.floor(score * 1e6) / 1e6), 1e-6)


@cache
def least_right(num_kept: int, accuracy: float, confidence: float) -> int:
    """How many of `num_kept` answers have to be right to prove a share of `accuracy`: `num_kept` + 1 if not even all would do."""
    tails = np.cumsum(_chances(num_kept, accuracy)[::-1])[::-1]  # [num_kept + 1] chance of k right ones or more
    return int(np.searchsorted(-tails, -(1.0 - confidence)))


def upper_tail(num_right: int, num_kept: int, share: float) -> float:
    """The chance of `num_right` right answers or more out of `num_kept`, each right with a chance of `share`."""
    return min(1.0, float(_chances(num_kept, share)[num_right:].sum()))


def lower_end(num_right: int, num_kept: int, confidence: float) -> float:
    """The lower end of the one-sided Clopper-Pearson interval: the share of right answers with which so many right ones, or more, would
    have come with a chance of 1 - `confidence`."""
    if num_right == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if upper_tail(num_right, num_kept, middle) > 1.0 - confidence:
            high = middle
        else:
            low = middle
    return low


def _chances(count: int, share: float) -> npt.NDArray[np.float64]:
    """The binomial distribution: the chance of each number of right answers [count + 1]."""
    right = np.arange(count + 1)
    if share in (0.0, 1.0):
        certain: npt.NDArray[np.float64] = (right == count * share).astype(np.float64)
        return certain
    logs: npt.NDArray[np.float64] = _log_coefficients(count) + right * log(share) + right[::-1] * log(1 - share)
    return np.exp(logs)


@cache
def _log_coefficients(count: int) -> npt.NDArray[np.float64]:
    """The logarithms of the binomial coefficients [count + 1]."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    found: npt.NDArray[np.float64] = factorials[count] - factorials - factorials[::-1]
    return found
