"""What a report says about rows: lengths, labels, failures, a sample. Counted over a bounded number of units from all of the output."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.report.facts import FailureExample, FailureKind, Histogram, LabelCount, LabelTable, SampleRow, histogram
from jobs.report.source import JsonRow, RunOutput
from pipelines.formats.json_values import RAW_KEY, dump_json
from pipelines.rows.unit import Unit

MAX_UNITS = 200
MAX_EXAMPLES = 3
MAX_SAMPLE_ROWS = 12
MAX_LABELS = 50
MAX_LABEL_CHARS = 120
MAX_CHARS = 600
MAX_MESSAGE_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFacts:
    """Lengths of `num_rows` rows, and what each task gave them, by the task's name."""

    num_rows: int
    prompt_lengths: Histogram | None
    completion_lengths: Histogram | None
    labels: Mapping[str, LabelTable]


def spread(units: npt.NDArray[Any], count: int) -> list[int]:
    """At most `count` of `units`, at even distances."""
    if len(units) <= count:
        return [int(unit) for unit in units]
    return [int(units[place]) for place in np.linspace(0, len(units) - 1, count).round().astype(int)]


def known_labels(output: RunOutput, units: Sequence[int], class_names: Sequence[str]) -> Sequence[str]:
    """All labels that the task could give, as far as the first of its rows in `units`, or the names of the checkpoint's classes, tell."""
    counted = output.task.counted
    if counted is None or not units:
        return ()
    first = output.first_result(units, counted.known_columns) if output.written(counted.known_columns) else {}
    return () if first is None else counted.known(first, class_names)


def row_facts(output: RunOutput, units: Sequence[int], known: Mapping[str, Sequence[str]]) -> RowFacts:
    """Counts over the results of `units`; `known` labels of a task that none of them has are counted as 0."""
    counters = {name: _TaskCounter(part, known[name]) for name, part in output.parts().items()}
    wanted = output.written(("prompt_tokens", "completion_tokens"))
    columns = [*wanted, *(column for counter in counters.values() for column in counter.columns)]
    num_rows = 0
    lengths: dict[str, list[int]] = {"prompt_tokens": [], "completion_tokens": []}
    for unit in units:
        for row in output.results(unit, columns):
            num_rows += 1
            for column, name in wanted.items():
                lengths[name].append(row[column])
            for counter in counters.values():
                counter.add(row)
    tasks = [part.task for part in output.parts().values()]
    return RowFacts(
        num_rows=num_rows,
        prompt_lengths=histogram(np.array(lengths["prompt_tokens"], np.int64)),
        completion_lengths=histogram(np.array(lengths["completion_tokens"], np.int64))
        if any(task.generates or task.calls_api for task in tasks)
        else None,
        labels={name: counter.table() for name, counter in counters.items()},
    )


class _TaskCounter:
    """Counts what one task gave rows."""

    def __init__(self, output: RunOutput, known: Sequence[str]) -> None:
        self._counted, self._known, self._counter = output.task.counted, known, _LabelCounter()
        self.columns = output.written(() if self._counted is None else self._counted.columns)
        self._output = output

    def add(self, row: JsonRow) -> None:
        result = self._output.result_of(row, self.columns)
        if self._counted is not None and result is not None:
            self._counter.add(self._counted.labels_in(result))

    def table(self) -> LabelTable:
        return LabelTable(
            labels_of="" if self._counted is None else self._counted.title,
            num_labels=len(self._counter.num.keys() | set(self._known)),
            labels=self._counter.counts(self._known),
        )


class _LabelCounter:
    """Counts labels, and adds up the scores of those that have one."""

    def __init__(self) -> None:
        self.num: Counter[str] = Counter()
        self._scored: Counter[str] = Counter()
        self._scores: defaultdict[str, float] = defaultdict(float)

    def add(self, labels: Iterable[tuple[str, float | None]]) -> None:
        for label, score in labels:
            self.num[label] += 1
            if score is not None:
                self._scored[label] += 1
                self._scores[label] += score

    def counts(self, known: Iterable[str]) -> list[LabelCount]:
        """The most frequent labels, their shares of all; those of `known` that were never given come last."""
        total = self.num.total()
        never = ((label, 0) for label in dict.fromkeys(known) if label not in self.num)
        return [
            LabelCount(
                label=shortened(label, MAX_LABEL_CHARS),
                count=count,
                share=count / total if total else 0.0,
                mean_score=self._scores[label] / self._scored[label] if self._scored[label] else None,
            )
            for label, count in islice(chain(self.num.most_common(), never), MAX_LABELS)
        ]


def failure_kinds(output: RunOutput, units: Sequence[int]) -> list[FailureKind]:
    """The dead letters of `units` by kind, the most frequent first, and the units that could not be read."""
    counts: Counter[str] = Counter()
    examples: defaultdict[str, list[FailureExample]] = defaultdict(list)
    for letter in output.letters_of_units(units):
        counts[letter["kind"]] += 1
        if len(examples[letter["kind"]]) < MAX_EXAMPLES:
            examples[letter["kind"]].append(_example(letter, letter["row"], short_text(letter["input"])))
    kinds = [FailureKind(kind=kind, count=count, examples=examples[kind]) for kind, count in counts.most_common()]
    unreadable = output.unreadable_units()
    if unreadable:
        shown = [_example(unit, unit["first_row"], f"{unit['num_rows']:,} rows") for unit in unreadable[:MAX_EXAMPLES]]
        num_rows = sum(unit["num_rows"] for unit in unreadable)
        kinds.append(FailureKind(kind="unreadable unit", count=num_rows, examples=shown))
    return kinds


def _example(letter: JsonRow, row: int, given: str) -> FailureExample:
    return FailureExample(
        path=letter["path"], row=row, message=shortened(letter["message"], MAX_MESSAGE_CHARS), input=given
    )


def sample_of(output: RunOutput, units: Mapping[int, Unit]) -> list[SampleRow]:
    """Rows from all `units`, each with its input, read again where that is possible, else as far as it was carried."""
    per_unit = max(1, MAX_SAMPLE_ROWS // max(1, len(units)))
    return [row for unit in units.values() for row in _sample_rows(output, unit, per_unit)]


def _sample_rows(output: RunOutput, unit: Unit, count: int) -> Iterator[SampleRow]:
    results = output.numbered_results(unit)
    inputs = output.inputs(unit)
    start = unit.index * 7919  # other places in every unit
    for place in sorted({(start + step * len(results) // count) % len(results) for step in range(count)}):
        number, result = results[place]
        carried = {name: value for name, value in result.items() if name in output.carried}
        yield SampleRow(
            path=unit.relative_path,
            row=number,
            inputs={name: short_text(value) for name, value in inputs.get(number, carried).items()},
            outputs={name: short_text(value) for name, value in result.items() if name not in carried},
        )


def short_text(value: Any) -> str:
    """A JSON value as short text, raw bytes as what they spell; numbers with four digits after the point are enough."""
    if isinstance(value, dict) and value.keys() == {RAW_KEY}:
        value = base64.b64decode(value[RAW_KEY]).decode(errors="backslashreplace")
    if isinstance(value, str):
        return shortened(value, MAX_CHARS)
    return shortened(dump_json(_rounded(value)).decode(errors="replace"), MAX_CHARS)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def shortened(text: str, max_chars: int) -> str:
    """The beginning of a text, with a mark where it was cut."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"
