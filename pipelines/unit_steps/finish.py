"""Raw results -> result columns, after the carried ones, which keep their types.

    generate   text [, logprobs]
    classify   label, score, scores [, labels]
    extract    spans, or answer
    and then   finish_reason, prompt_tokens, completion_tokens [, model]

The last three are there for every task, so that all outputs can be read alike: a single-pass task generates nothing, so its
`finish_reason` is null and its `completion_tokens` 0. `prompt_tokens` counts all windows of a row, special tokens and what neighbours
share included. `model` is there in a cascade, where several models answer (`pipelines.unit_steps.steps`).

`logprobs` is there when the task samples with `logprobs`: {token_id, logprob, rank, top: list of {token_id, logprob}} for each token.
`labels` is there when the checkpoint decides on every class apart (multi-label): all classes with a score of 0.5 or more. Of a head with
one class `label` is that class and `score` its probability (sigmoid). Of a regression (`problem_type` in config.json) `label` is null,
`score` the model's value (null if it has several), and `scores` all its values. A text's windows are put together class by class: the
mean or maximum of the probabilities, of a regression the values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from actors.work import ApiAnswer, EngineAnswer, Refused
from models.engine.scheduling.request import Output
from pipelines.errors import RowError
from pipelines.formats.batch_lines import SUCCESS
from pipelines.job import Job
from pipelines.kinds import INTERNAL_ERROR, NOT_FINITE, REFUSED
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import Answers, FinishedUnit, PreparedUnit, RowFailure, Rows
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import ModelRequest

BoolArray = npt.NDArray[np.bool_]

_TOKEN_FIELDS = (
    pa.field("finish_reason", pa.string()),
    pa.field("prompt_tokens", pa.int64()),
    pa.field("completion_tokens", pa.int64()),
)
MODEL_FIELD = pa.field("model", pa.string())


def result_columns(job: Job, facts: TaskFacts) -> list["pa.Field[Any]"]:
    """The columns that finishing adds to the carried ones, in order, with the output's prefix."""
    fields = [*job.task.fields(facts), *_TOKEN_FIELDS]
    if job.cascade:
        fields.append(MODEL_FIELD)
    return [field.with_name(job.output.prefix + field.name) for field in fields]


def finish(job: Job, facts: TaskFacts, prepared: PreparedUnit, answers: Answers) -> FinishedUnit:
    """A unit's output table and dead letters."""
    carried, misfits = carried_rows(job, prepared.rows)
    everything = answered_rows(prepared, answers)
    errors = dict(sorted((misfits | job.task.row_errors(everything)).items()))
    is_bad = np.zeros(everything.num_rows, np.bool_)
    is_bad[list(errors)] = True
    tokens = job.task.tokens(everything)
    return FinishedUnit(
        unit=prepared.unit,
        carried=carried.kept(~is_bad),
        results=_results(job, facts, everything.without(is_bad)),
        failures=_failures(prepared, is_bad, errors),
        prompt_tokens=tokens.prompt,
        cached_tokens=tokens.cached,
        completion_tokens=tokens.completion,
        seconds=answers.seconds,
        prompt=prepared.prompt,
    )


def answered_rows(prepared: PreparedUnit, answers: Answers) -> AnsweredRows:
    """The rows of a unit with their answers, good and bad ones."""
    before = {(row, number): error for row, one in enumerate(prepared.several) for number, error in one.errors.items()}
    return AnsweredRows(
        num_rows=prepared.rows.num_rows,
        rows=np.array([request.row for request in prepared.requests], np.int64),
        requests=prepared.requests,
        results=answers.results,
        texts=prepared.texts,
        several=prepared.several,
        errors=before | _errors(prepared.requests, answers.results),
    )


def carried_rows(job: Job, rows: Rows) -> tuple[Rows, dict[int, RowError]]:
    """The carried columns as the output holds them, and the errors of rows that its types do not hold."""
    carried = rows.carried(job.input.columns)
    if job.output.format != "parquet":
        return carried, {}
    columns = carried.as_arrow()
    return ArrowRows(table=columns.table), dict(columns.misfits)


def _errors(
    requests: Sequence[ModelRequest], results: Sequence[EngineAnswer | RowError]
) -> dict[tuple[int, int], RowError]:
    """What went wrong in the engine, by row and task, the first of each."""
    errors: dict[tuple[int, int], RowError] = {}
    for request, result in zip(requests, results, strict=True):
        error = _error(result)
        if error is not None:
            errors.setdefault((request.row, request.task), error)
    return errors


def _error(result: EngineAnswer | RowError) -> RowError | None:
    if isinstance(result, RowError):
        return result
    if isinstance(result, Refused):
        return RowError(REFUSED, result.error)
    if isinstance(result, Output):
        return None
    if isinstance(result, ApiAnswer):
        return None if result.status == SUCCESS else _refusal(result)
    if np.isfinite(result.values).all():
        return None
    return RowError(NOT_FINITE, "the model answered with values that are not numbers; try dtype: float32")


def _refusal(answer: ApiAnswer) -> RowError:
    """The error of a row whose request the API did not answer with what was asked for. What is a fault of ours there is one here."""
    body: dict[str, Any] = orjson.loads(answer.body)
    kind = INTERNAL_ERROR if body["error"]["code"] == INTERNAL_ERROR else REFUSED
    return RowError(kind, body["error"]["message"], {"status": answer.status, "body": body})


def _failures(prepared: PreparedUnit, is_bad: BoolArray, errors: Mapping[int, RowError]) -> tuple[RowFailure, ...]:
    """The failures so far and those of the model, by row number."""
    inputs = prepared.rows.kept(is_bad).as_given()
    new = [
        RowFailure(
            row=int(prepared.row_numbers[row]),
            kind=error.kind,
            message=error.message,
            input=values,
            answer=error.answer,
            tasks=error.tasks,
        )
        for (row, error), values in zip(errors.items(), inputs, strict=True)
    ]
    return tuple(sorted((*prepared.failures, *new), key=lambda failure: failure.row))


def _results(job: Job, facts: TaskFacts, rows: AnsweredRows) -> pa.Table:
    """The result columns of the good rows."""
    arrays: list[Any] = [*job.task.columns(facts, rows), *_token_columns(job, rows)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(result_columns(job, facts)))


def _token_columns(job: Job, rows: AnsweredRows) -> list["pa.Array[Any]"]:
    """Why the text ended, and how many tokens were read and written."""
    read, written = pa.array(rows.prompt_tokens, pa.int64()), pa.array(rows.completion_tokens, pa.int64())
    return [job.task.finish_reasons(rows), read, written]
