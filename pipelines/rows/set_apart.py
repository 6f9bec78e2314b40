"""Units with fewer rows: some kept and the others forgotten, or some set apart as dead letters."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np

from pipelines.errors import RowError
from pipelines.rows.rows import Answers, BoolArray, JsonRow, PreparedUnit, RowFailure, Rows, UnitRows

UNSHOWN_KEY = "_unshown"


def kept_rows_of(rows: UnitRows, keep: BoolArray) -> UnitRows:
    """The rows where `keep` [N] is true, and no failures."""
    return replace(rows, rows=rows.rows.kept(keep), row_numbers=rows.row_numbers[keep], failures=())


def with_failed_rows(rows: UnitRows, errors: Mapping[int, RowError]) -> UnitRows:
    """The same unit with the rows at these positions among the failures."""
    if not errors:
        return rows
    failures = (*rows.failures, *_failures(rows.rows, rows.row_numbers, errors))
    return replace(kept_rows_of(rows, _others(rows.rows.num_rows, errors)), failures=failures)


def kept_answers_of(prepared: PreparedUnit, answers: Answers, keep: BoolArray) -> tuple[PreparedUnit, Answers]:
    """The rows where `keep` [N] is true with their requests and answers, and no failures."""
    positions = np.cumsum(keep) - 1  # [N] a kept row's new number
    is_kept = [bool(keep[request.row]) for request in prepared.requests]
    requests = (request for request, is_in in zip(prepared.requests, is_kept, strict=True) if is_in)
    kept = replace(
        prepared,
        rows=prepared.rows.kept(keep),
        row_numbers=prepared.row_numbers[keep],
        failures=(),
        requests=tuple(replace(request, row=int(positions[request.row])) for request in requests),
        texts=tuple(compress(prepared.texts, keep.tolist())),  # of all rows, or of none
        several=tuple(compress(prepared.several, keep.tolist())),
    )
    results = [result for result, is_in in zip(answers.results, is_kept, strict=True) if is_in]
    return kept, replace(answers, results=results)


def with_failed_answers(
    prepared: PreparedUnit, answers: Answers, errors: Mapping[int, RowError]
) -> tuple[PreparedUnit, Answers]:
    """The same unit with the rows at these positions among the failures."""
    if not errors:
        return prepared, answers
    failures = (*prepared.failures, *_failures(prepared.rows, prepared.row_numbers, errors))
    kept, kept_answers = kept_answers_of(prepared, answers, _others(prepared.rows.num_rows, errors))
    return replace(kept, failures=failures), kept_answers


def _others(num_rows: int, positions: Mapping[int, Any]) -> BoolArray:
    keep = np.ones(num_rows, np.bool_)
    keep[list(positions)] = False
    return keep


def _failures(rows: Rows, row_numbers: "np.ndarray[Any, Any]", errors: Mapping[int, RowError]) -> list[RowFailure]:
    return [
        RowFailure(row=int(row_numbers[row]), kind=error.kind, message=error.message, input=_given(rows, row))
        for row, error in sorted(errors.items())
    ]


def _given(rows: Rows, row: int) -> JsonRow:
    """A row as it came in, if it can be shown."""
    keep = np.zeros(rows.num_rows, np.bool_)
    keep[row] = True
    try:
        return rows.kept(keep).as_given()[0]
    except Exception as error:  # noqa: BLE001 - the row boundary: the letter says where the row is
        return unshown(error)


def unshown(error: Exception) -> dict[str, str]:
    """What stands in a dead letter for a row that cannot be shown."""
    return {UNSHOWN_KEY: type(error).__name__}
