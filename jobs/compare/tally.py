"""Two runs' results added up pair by pair: how many answers are equal, which labels met which, how far numbers are apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from jobs.errors import UsageError
from pipelines.formats.json_values import dump_json
from pipelines.task_base.compared import Said

Difference = Literal["answers", "numbers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPair:
    """One label that a row may have beside others: rows that have it in both runs, in the first or the second alone, and in none."""

    label: str
    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of having it."""
        return cohens_kappa(
            {("1", "1"): self.both, ("1", "0"): self.only_a, ("0", "1"): self.only_b, ("0", "0"): self.neither}
        )


@dataclass(slots=True)
class AgreementTally:
    """Rows that have a result in both runs. `tolerance` is how far numbers may be apart in rows that count as equal, where there is
    nothing but numbers."""

    tolerance: float = 0.0
    num_rows: int = 0
    num_answered: int = 0
    num_equal: int = 0
    num_differing: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_one_label: bool = True
    num_numbers: int = 0
    sum_of_differences: float = 0.0
    largest: float = 0.0
    _both: Counter[str] = field(default_factory=Counter)
    _a: Counter[str] = field(default_factory=Counter)
    _b: Counter[str] = field(default_factory=Counter)

    def add(self, a: Said, b: Said) -> Difference | None:
        """One row; in what it differs.

        Raises:
            UsageError: one run has answers and the other numbers alone, or vectors of other lengths.
        """
        if (a.answers is None) != (b.answers is None):
            raise UsageError("one run has answers and the other numbers alone, so that rows cannot be compared")
        self.num_rows += 1
        apart = self._add_numbers(a.numbers, b.numbers)
        found: Difference | None = None
        if a.answers is not None and b.answers is not None:
            self.num_answered += 1
            is_equal = _as_set(a.answers) == _as_set(b.answers)
            self.num_equal += is_equal
            self._add_labels(a, b)
            found = None if is_equal else "answers"
        elif apart > self.tolerance:
            found = "numbers"
        self.num_differing += found is not None
        return found

    def _add_labels(self, a: Said, b: Said) -> None:
        if a.is_one_label and b.is_one_label:
            self.pairs[a.labels[0], b.labels[0]] += 1
        else:
            self.is_one_label = False
        has_a, has_b = set(a.labels), set(b.labels)
        self._both.update(has_a & has_b)
        self._a.update(has_a - has_b)
        self._b.update(has_b - has_a)

    def _add_numbers(self, a: Mapping[str, float] | Sequence[float], b: Mapping[str, float] | Sequence[float]) -> float:
        """How far the numbers are apart at most; of those with names the ones that both have."""
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names = a.keys() & b.keys()
            a, b = [a[name] for name in names], [b[name] for name in names]
        first, second = (np.array([*values], np.float64) for values in (a, b))  # [N] each
        if first.shape != second.shape:
            raise UsageError(
                f"one run has {len(first):,} numbers a row and the other {len(second):,}; give runs of one size"
            )
        if not first.size:
            return 0.0
        apart = np.abs(first - second)
        self.num_numbers += apart.size
        self.sum_of_differences += float(apart.sum())
        self.largest = max(self.largest, float(apart.max()))
        return float(apart.max())

    @property
    def agreement(self) -> float | None:
        """The share of answers that are equal; None where there are none."""
        return self.num_equal / self.num_answered if self.num_answered else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, where every row has one label."""
        return cohens_kappa(self.pairs) if self.is_one_label and self.pairs else None

    @property
    def mean_difference(self) -> float | None:
        """Of all numbers that both runs have; None if there are none."""
        return self.sum_of_differences / self.num_numbers if self.num_numbers else None

    def labels(self) -> list[LabelPair]:
        """Every label with how often each run gave it, the most frequent first."""
        names = self._both + self._a + self._b
        return [
            LabelPair(
                label=name,
                both=self._both[name],
                only_a=self._a[name],
                only_b=self._b[name],
                neither=self.num_answered - count,
            )
            for name, count in names.most_common()
        ]


def _as_set(answers: Sequence[object]) -> list[bytes]:
    """Answers in an order of their own."""
    return sorted(map(dump_json, answers))


def cohens_kappa(pairs: Mapping[tuple[str, str], int]) -> float | None:
    """Agreement beyond what chance would give two raters with these frequencies (Cohen 1960): (p_o - p_e) / (1 - p_e), here in whole
    numbers. None where chance alone agrees always: both gave one and the same label to every row."""
    total = sum(pairs.values())
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for (a, b), count in pairs.items():
        first[a] += count
        second[b] += count
    equal = sum(count for (a, b), count in pairs.items() if a == b) * total
    by_chance = sum(first[label] * second[label] for label in first)
    return None if by_chance == total**2 else (equal - by_chance) / (total**2 - by_chance)
