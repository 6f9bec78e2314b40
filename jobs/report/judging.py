"""Claims against truths, added up row by row in bounded memory, and what that comes to."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.errors import UsageError
from jobs.report.truth_facts import NUM_BINS, Confusion, LabelJudged, Reliability
from pipelines.rows.unit import Unit
from pipelines.task_base.judged import Claim, Form, Item

MAX_DISTINCT: Final = 10_000
MAX_SHOWN_LABELS: Final = 200
MAX_MATRIX: Final = 20
MAX_WORST: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RowAt:
    """Where a row is: its unit, and its number in the unit's file."""

    unit: Unit
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """A wrong claim about a row, and what is right at its place."""

    at: RowAt
    claim: Claim
    right: tuple[str, ...]


class Judge:
    """Adds rows up. All results are of one form."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.num_rows = self.num_right = 0
        self._right: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._support: Counter[str] = Counter()
        self._pairs: Counter[tuple[str | None, str | None]] = Counter()
        self._bins = _Bins()
        self._worst: list[tuple[float, int, Wrong]] = []
        self._num_claims = 0

    def add(self, at: RowAt, claims: Sequence[Claim], truth: frozenset[Item]) -> None:
        """One row.

        Raises:
            UsageError: the truth has more different labels than there may be.
        """
        made = {claim.item for claim in claims if claim.is_made}
        self.num_rows += 1
        self.num_right += made == truth
        self._right.update(label for _, label in made & truth)
        self._wrong.update(label for _, label in made - truth)
        self._support.update(label for _, label in truth)
        if len(self._support) > MAX_DISTINCT:
            raise UsageError(f"the truth has over {MAX_DISTINCT:,} different labels; give a column of labels")
        if self.form != "labels":
            self._pairs.update(_pairs(truth, made))
        for claim in claims:
            self._add_claim(at, claim, truth)

    def _add_claim(self, at: RowAt, claim: Claim, truth: frozenset[Item]) -> None:
        holds = claim.item in truth
        self._bins.add(claim.score, holds)
        self._num_claims += 1
        if claim.is_made == holds:
            return
        right = tuple(sorted(label for place, label in truth if place == claim.place))
        entry = (claim.confidence, -self._num_claims, Wrong(at=at, claim=claim, right=right))
        if len(self._worst) < MAX_WORST:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)

    @property
    def total(self) -> LabelJudged:
        """All labels as one."""
        return LabelJudged(
            label="", right=self._right.total(), wrong=self._wrong.total(), support=self._support.total()
        )

    def labels(self, known: Iterable[str]) -> list[LabelJudged]:
        """Every label of truth, results and `known`, the most frequent in truth first."""
        names = dict.fromkeys((*known, *self._support, *self._right, *self._wrong))
        found = [
            LabelJudged(label=name, right=self._right[name], wrong=self._wrong[name], support=self._support[name])
            for name in names
        ]
        return sorted(found, key=lambda one: (-one.support, -one.right - one.wrong))

    def macro_f1(self) -> float:
        """The mean of F1 over the labels that truth or results have."""
        found = [one.f1 for one in self.labels(())]
        return sum(found) / len(found) if found else 0.0

    def confusion(self, labels: Sequence[LabelJudged]) -> Confusion | None:
        """Of the first of `labels`, those that were seen; None where labels do not exclude one another."""
        if self.form == "labels":
            return None
        seen = [one.label for one in labels if one.is_seen]
        shown = seen[:MAX_MATRIX]
        index: dict[str | None, int] = {label: place for place, label in enumerate(shown)}
        counts = np.zeros((len(shown) + 1, len(shown) + 1), np.int64)  # [right, given]
        for (right, given), count in self._pairs.items():
            counts[index.get(right, -1), index.get(given, -1)] += count
        return Confusion(
            labels=shown,
            counts=counts.tolist(),
            num_others=len(seen) - len(shown),
            has_none=self.form == "spans",
        )

    def reliability(self) -> Reliability | None:
        """None if there was no score."""
        return self._bins.reliability()

    def worst(self) -> list[Wrong]:
        """The wrong claims that the model was surest of, the surest first."""
        return [wrong for _, _, wrong in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]


def _pairs(truth: frozenset[Item], made: set[Item]) -> Iterator[tuple[str | None, str | None]]:
    """What is right and what was given at each place: equal ones together, the others in the order of their names."""
    places: defaultdict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for right in truth - made:
        places[right[0]][0].append(right[1])
    for given in made - truth:
        places[given[0]][1].append(given[1])
    yield from ((label, label) for _, label in truth & made)
    for rights, givens in places.values():
        yield from zip_longest(sorted(rights), sorted(givens))


class _Bins:
    """Scores in bins (0, 0.1], (0.1, 0.2] and so on, 0 in the first."""

    def __init__(self) -> None:
        self._num = np.zeros(NUM_BINS, np.int64)
        self._scores = np.zeros(NUM_BINS)
        self._right = np.zeros(NUM_BINS, np.int64)

    def add(self, score: float, is_right: bool) -> None:
        exact = np.float32(score) * np.float32(NUM_BINS)  # float32, as scores are: 0.3 as a float64 lies over its edge
        place = min(max(int(np.ceil(exact)) - 1, 0), NUM_BINS - 1)
        self._num[place] += 1
        self._scores[place] += score
        self._right[place] += is_right

    def reliability(self) -> Reliability | None:
        total = int(self._num.sum())
        if not total:
            return None
        gaps = np.abs(self._scores - self._right)  # of sums: the number of scores in a bin cancels out
        return Reliability(
            counts=self._num.tolist(),
            mean_scores=_means(self._scores, self._num),
            shares_right=_means(self._right, self._num),
            ece=float(gaps.sum()) / total,
        )


def _means(sums: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> list[float | None]:
    """The mean of each bin [bins], None where nothing is in it."""
    return [total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)]
