"""What a report says: plain numbers and short texts, bounded in size whatever the size of the output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from jobs.report.truth_facts import TruthFacts

Floats = npt.NDArray[np.float64]

MAX_BINS = 60
MAX_PAUSE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Rows by length: bin n counts lengths from `edges[n]` to below `edges[n + 1]`, the last bin its end too."""

    edges: Sequence[int]
    counts: Sequence[int]
    median: int
    p95: int
    longest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Throughput over the time that engines were at work; pauses between runs are left out. One value a bin of `bin_s` seconds."""

    bin_s: float
    rows_per_s: Sequence[float]
    tokens_per_s: Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCount:
    """How often a label was given, and how sure the model was on average."""

    label: str
    count: int
    share: float
    mean_score: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureExample:
    """One dead letter, shortened."""

    path: str
    row: int | None
    message: str
    input: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureKind:
    """A kind of failure, how many rows it took, and some of them."""

    kind: str
    count: int
    examples: Sequence[FailureExample]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """One row side by side: what came in, what came out, each as name and short text."""

    path: str
    row: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShare:
    """What one model of a cascade did: the rows that it was given, those of them whose answer counts, its prompt tokens, and those of them
    that were cached. `until` is the score from which its answers count, None for the last."""

    name: str
    until: float | None
    rows_asked: int
    rows_kept: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationShare:
    """A later generation of the spec: its number, how many rows it was the last to compute, with a
    result or without, and what is another in it than in the run's own, a line each."""

    generation: int
    rows: int
    changes: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """Labels of rows, under the heading `labels_of`: `num_labels` how many there are, of which `labels` are the most frequent."""

    labels_of: str
    num_labels: int
    labels: Sequence[LabelCount]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFigures(LabelTable):
    """What one task gave rows; `name` is its own among several. `truth` is what holding the results against a truth came to,
    `truth_problem` why that was not possible; both None if nobody asked."""

    name: str
    truth: TruthFacts | None
    truth_problem: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFacts:
    """A run's output, summed up.

    `counted_rows` is how many rows the histograms and labels were counted over, `counted_failures`
    how many dead letters the kinds; `tasks` is what each task gave them. `models` is what each
    model of a cascade did, empty without one; `generations` are those of a spec that was changed
    to try dead letters again. `prompt` is what the model has read for the first row, None where no
    run has kept it.
    """

    name: str
    output: str
    version: str
    units_total: int
    units_done: int
    units_failed: int
    rows_total: int
    rows_written: int
    rows_failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    active_s: float
    models: Sequence[ModelShare]
    generations: Sequence[GenerationShare]
    counted_rows: int
    counted_failures: int
    timeline: Timeline | None
    prompt_lengths: Histogram | None
    completion_lengths: Histogram | None
    tasks: Sequence[TaskFigures]
    failures: Sequence[FailureKind]
    sample: Sequence[SampleRow]
    prompt: str | None
    model: Mapping[str, str]
    spec: str

    @property
    def is_complete(self) -> bool:
        return self.units_done == self.units_total

    @property
    def rows_per_s(self) -> float:
        return (self.rows_written + self.rows_failed) / self.active_s if self.active_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Those that were computed."""
        computed = self.prompt_tokens + self.completion_tokens - self.cached_tokens
        return computed / self.active_s if self.active_s else 0.0


def histogram(lengths: npt.NDArray[np.int64]) -> Histogram | None:
    """Bins of equal whole width over `lengths`; None if there are none."""
    if not lengths.size:
        return None
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // MAX_BINS)
    edges = np.arange(low, high + width + 1, width)
    counts, _ = np.histogram(lengths, bins=edges)
    return Histogram(
        edges=edges.tolist(),
        counts=counts.tolist(),
        median=int(np.percentile(lengths, 50, method="lower")),
        p95=int(np.percentile(lengths, 95, method="lower")),
        longest=high,
    )


def timeline(*, committed: Floats, seconds: Floats, rows: Floats, tokens: Floats) -> tuple[Timeline | None, float]:
    """Throughput over active time, and how long that was.

    One value a unit: when it was committed and how long it was computed (seconds), its rows and its tokens. A unit's work is spread
    evenly over the time it took; stretches of over `MAX_PAUSE_S` in which no unit was at work are left out.
    """
    if not committed.size:
        return None, 0.0
    starts, ends = _without_pauses(committed - np.maximum(seconds, 1e-3), committed)
    total_s = float(ends.max())
    num_bins = int(min(MAX_BINS, max(1, committed.size * 2)))
    edges = np.linspace(0.0, total_s, num_bins + 1)
    bin_s = total_s / num_bins
    rows_per_s, tokens_per_s = [], []
    for left, right in pairwise(edges):
        share = np.clip(np.minimum(ends, right) - np.maximum(starts, left), 0.0, None) / (ends - starts)
        rows_per_s.append(float(share @ rows) / bin_s)
        tokens_per_s.append(float(share @ tokens) / bin_s)
    return Timeline(bin_s=bin_s, rows_per_s=rows_per_s, tokens_per_s=tokens_per_s), total_s


def _without_pauses(starts: Floats, ends: Floats) -> tuple[Floats, Floats]:
    """Both from 0 on, with every long stretch that no interval covers taken out."""
    order = np.argsort(starts, kind="stable")
    covered_to = np.maximum.accumulate(ends[order])
    gaps = np.maximum(starts[order][1:] - covered_to[:-1], 0.0)
    shifts = np.zeros_like(starts)
    shifts[order] = np.concatenate([[0.0], np.cumsum(np.where(gaps > MAX_PAUSE_S, gaps, 0.0))]) + starts.min()
    return starts - shifts, ends - shifts
