"""What a report says of results that were held against a truth: plain numbers and short texts, bounded in size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.task_base.judged import Form

NUM_BINS: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelJudged:
    """One label over all items: how many it was given to, rightly and wrongly, and how many have it in truth (`support`).

    Precision is right / (right + wrong), recall right / support, F1 their harmonic mean; 0 where nothing is divided by.
    """

    label: str
    right: int
    wrong: int
    support: int

    @property
    def precision(self) -> float:
        return _share(self.right, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return _share(self.right, self.support)

    @property
    def f1(self) -> float:
        return _share(2 * self.right, self.right + self.wrong + self.support)

    @property
    def is_seen(self) -> bool:
        """Whether truth or results have it at all."""
        return self.right + self.wrong + self.support > 0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Items by what is right (rows) and what was given (columns), counts [labels + 1, labels + 1]; the last of each is whatever is
    neither of `labels`: `num_others` labels more, and for spans none at all."""

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    num_others: int
    has_none: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Scores against the share that was right, in bins of equal width over 0 to 1: `counts` [bins], the mean score and the share right
    of each bin [bins], None where it is empty.

    `ece` is the expected calibration error, the mean over all scores of the distance of the two in their bins (Naeini et al. 2015;
    Guo et al. 2017, arXiv:1706.04599).
    """

    counts: Sequence[int]
    mean_scores: Sequence[float | None]
    shares_right: Sequence[float | None]
    ece: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """A claim that is wrong: how sure the model was, what it said and what is right, and the row's input as name and short text."""

    path: str
    row: int
    score: float
    said: str
    right: str
    inputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class TruthFacts:
    """Results against the truth in `column`, over `num_rows` rows; `num_unknown` more have no truth, `num_unusable` more one that is
    none, the first because of `unusable`.

    `accuracy` is the share of rows that are right as a whole. Precision, recall and F1 are over all items, `macro_f1` is the mean of F1
    over the labels that truth or results have.
    """

    column: str
    form: Form
    num_rows: int
    num_unknown: int
    num_unusable: int
    unusable: str
    accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    num_labels: int
    labels: Sequence[LabelJudged]
    confusion: Confusion | None
    reliability: Reliability | None
    disagreements: Sequence[Disagreement]
