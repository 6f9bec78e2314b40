"""A run's results held against a column of its input that says what is right.

The column is taken from the results where it was carried, and else read from the input again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.errors import UsageError
from jobs.report.judging import MAX_SHOWN_LABELS, Judge, RowAt, Wrong
from jobs.report.rows import MAX_LABEL_CHARS, short_text, shortened
from jobs.report.source import JsonRow, RunOutput
from jobs.report.truth_facts import Confusion, Disagreement, TruthFacts
from pipelines.errors import PlanError, SourceError
from pipelines.formats.schema import shown_names
from pipelines.rows.unit import Unit
from pipelines.task_base.judged import Claim, Form, Item, Judged, Truth, truth_of, why_not_judged
from pipelines.units.one_column import Values, read_column


def given_truth(output: RunOutput, given: Sequence[str], planned: Truth | None) -> Truth | None:
    """A truth as options give it: the column, or NAME=COLUMN for some of several tasks; of the others, and without options, the one
    that is `planned`.

    Raises:
        UsageError: it is no truth of this run's tasks.
    """
    names = [*output.parts()]
    if not given:
        return planned
    if names == [""]:
        if len(given) > 1:
            raise UsageError(f"--truth was given {len(given)} times; a row has one task here, which has one truth")
        return given[0]
    pairs = [each.partition("=") for each in given]
    for name, _, column in pairs:
        if name not in names or not column:
            raise UsageError(
                f"--truth was {name!r}; a row has several tasks here: give NAME=COLUMN, where NAME is one of {', '.join(names)}"
            )
    others = planned if isinstance(planned, Mapping) else {}
    return {**others, **{name: column for name, _, column in pairs}}


def held_against(output: RunOutput, column: str, units: Sequence[int], known: Sequence[str]) -> TruthFacts:
    """The results of `units` against `column`; `known` are all labels that the task could give.

    Raises:
        UsageError: results, or what the column holds, cannot be judged, or the column cannot be read.
        DamageError: a file of the output is not what was committed.
    """
    judged = output.task.judged
    if judged is None:
        raise UsageError(why_not_judged(output.task.kind))
    if not units:
        raise UsageError("no row has a result yet")
    form = _form(output, judged, units)
    rows = _TruthRows(form, column)
    for unit, truths in _truths(output, column, units):
        rows.add_unit(output, judged, unit, truths)
    return rows.facts(output, known)


def _form(output: RunOutput, judged: Judged, units: Sequence[int]) -> Form:
    first = output.first_result(units, judged.all_columns)
    if first is None:
        raise UsageError("the task has answered no row; the column errors of the results says why")
    try:
        return judged.form_in(first)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _truths(output: RunOutput, column: str, units: Sequence[int]) -> Iterator[tuple[Unit, Values | None]]:
    """The truths of each unit by row number where they are read from the input; None where the results carry them."""
    planned = list(output.units(units).values())
    if column in output.carried:
        yield from ((unit, None) for unit in planned)
        return
    types = output.record.spec["input"]["schema"] or {}
    is_there = False
    try:
        for unit, values in read_column(planned, column, types=types, storage=output.source):
            is_there = is_there or bool(values)
            yield unit, values or {}
    except (SourceError, PlanError) as error:
        raise UsageError(
            f"the column {column!r} is not in the results, and cannot be read from the input again: {error}; give --spec SPEC "
            "if that needs storage options, or carry the column (input.columns)"
        ) from error
    if not is_there:
        carried = shown_names(sorted(output.carried)) or "none"
        raise UsageError(f"neither the results nor the input has a column {column!r}; carried columns: {carried}")


class _TruthRows:
    """Rows with their truths, on the way to a judge."""

    def __init__(self, form: Form, column: str) -> None:
        self._judge = Judge(form)
        self._column = column
        self._num_unknown = self._num_unusable = 0
        self._unusable = ""

    def add_unit(self, output: RunOutput, judged: Judged, unit: Unit, truths: Values | None) -> None:
        """All rows of a unit that have a result."""
        own = output.written(judged.columns_of(self._judge.form))
        wanted = [*own, self._column] if truths is None else [*own]
        for number, row in output.numbered_results(unit, wanted):
            result = output.result_of(row, own)
            if result is None:
                continue
            value = row.get(self._column) if truths is None else truths.get(number)
            at = RowAt(unit=unit, number=number)
            truth = self._truth(at, value)
            if truth is not None:
                self._judge.add(at, judged.claims_in(result), truth)

    def _truth(self, at: RowAt, value: Any) -> frozenset[Item] | None:
        try:
            truth = truth_of(value, self._judge.form)
        except ValueError as error:
            self._num_unusable += 1
            self._unusable = self._unusable or f"the truth of row {at.number} of {at.unit.relative_path} {error}"
            return None
        self._num_unknown += truth is None
        return truth

    def facts(self, output: RunOutput, known: Sequence[str]) -> TruthFacts:
        """What it comes to.

        Raises:
            UsageError: no row could be judged.
        """
        judge = self._judge
        if not judge.num_rows:
            what = self._unusable or "it is null, empty or missing in every row"
            raise UsageError(f"no row can be held against the column {self._column!r}: {what}")
        labels, total = judge.labels(known), judge.total
        return TruthFacts(
            column=self._column,
            form=judge.form,
            num_rows=judge.num_rows,
            num_unknown=self._num_unknown,
            num_unusable=self._num_unusable,
            unusable=self._unusable,
            accuracy=judge.num_right / judge.num_rows,
            precision=total.precision,
            recall=total.recall,
            f1=total.f1,
            macro_f1=judge.macro_f1(),
            num_labels=len(labels),
            labels=[replace(one, label=_short(one.label)) for one in labels[:MAX_SHOWN_LABELS]],
            confusion=_confusion(judge.confusion(labels)),
            reliability=judge.reliability(),
            disagreements=list(_disagreements(output, judge.worst(), self._column)),
        )


def _short(label: str) -> str:
    return shortened(label, MAX_LABEL_CHARS)


def _confusion(found: Confusion | None) -> Confusion | None:
    return None if found is None else replace(found, labels=[_short(label) for label in found.labels])


def _disagreements(output: RunOutput, worst: Sequence[Wrong], column: str) -> Iterator[Disagreement]:
    """The wrong claims with their rows' inputs, read again where that is possible, else as far as they were carried."""
    units = {wrong.at.unit.index: wrong.at.unit for wrong in worst}
    given = {index: _inputs(output, unit) for index, unit in units.items()}
    for wrong in worst:
        inputs = given[wrong.at.unit.index].get(wrong.at.number, {})
        texts = {name: short_text(value) for name, value in inputs.items() if name != column}
        claim = wrong.claim
        yield Disagreement(
            path=wrong.at.unit.relative_path,
            row=wrong.at.number,
            score=claim.confidence,
            said=_said(claim),
            right=", ".join(map(_short, wrong.right)) or "none",
            inputs=texts,
        )


def _said(claim: Claim) -> str:
    if not claim.is_made:
        return f"not {_short(claim.label)}"
    if claim.place is None:
        return _short(claim.label)
    start, end = claim.place
    return f"{_short(claim.label)}, characters {start:,} to {end:,}"


def _inputs(output: RunOutput, unit: Unit) -> dict[int, JsonRow]:
    """A unit's rows by row number, as they came in or as they were carried."""
    found = output.inputs(unit)
    return found if found or not output.carried else dict(output.numbered_results(unit, sorted(output.carried)))
