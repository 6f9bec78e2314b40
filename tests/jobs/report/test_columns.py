"""A report counts what the task wrote, whatever the input's own columns are called and hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.report.report import gather
from jobs.report.source import RunOutput
from pipelines.formats.schema import Columns
from pipelines.job import InputSpec, Job, ModelSpec, OutputFormat, OutputSpec
from pipelines.ledger.ledger import Ledger
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import FinishedUnit
from pipelines.task_base.task import Task
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.spans import SpansTask
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

OWN: Mapping[str, Any] = {
    "answer": "forty-two",
    "answers": [1, 2],
    "labels": "urgent",
    "spans": 7,
    "label": {"text": "a", "start": [3]},
    "score": None,
    "scores": [{"a": None}],
    "text": 1.5,
    "finish_reason": False,
    "prompt_tokens": "many",
}
"""Columns of an input, of every kind of JSON value."""

SPAN = {"start": 0, "end": 3, "label": "PER", "text": "Ann", "score": 0.5}
FOUND = {"start": 0, "end": 3, "text": "Ann", "score": 0.25}
WRITTEN: Mapping[str, tuple[Task, Mapping[str, list[Any]], list[tuple[str, int]]]] = {
    "generate": (
        GenerateTask(prompt="{{ id }}"),
        {"text": ["a", "b", "c"], "finish_reason": ["stop", "length", "stop"]},
        [("stop", 2), ("length", 1)],
    ),
    "classify": (
        ClassifyTask(text="{{ id }}"),
        {"label": ["x", "y", "x"], "score": [0.5, 0.6, 0.7]},
        [("x", 2), ("y", 1)],
    ),
    "multi-label": (
        ClassifyTask(text="{{ id }}"),
        {"label": ["x", "y", "x"], "score": [0.5, 0.6, 0.7], "labels": [["x", "y"], [], ["x"]]},
        [("x", 2), ("y", 1)],
    ),
    "regression": (
        ClassifyTask(text="{{ id }}"),
        {"label": pa.nulls(3, pa.string()), "score": [0.5, 0.6, 0.7]},  # type: ignore[dict-item]
        [],
    ),
    "extract": (SpansTask(text="{{ id }}"), {"spans": [[SPAN, SPAN], [], [SPAN]]}, [("PER", 3)]),
    "question": (
        AnswerTask(text="{{ id }}", question="Who?"),
        {"answer": [FOUND, None, FOUND]},
        [("answer found", 2), ("no answer", 1)],
    ),
}


def run_with(folder: Path, written: str, own: Mapping[str, Any], format: OutputFormat, prefix: str) -> OutputSpec:
    """A run of three rows that carries `own`, and has written what `written` names."""
    task, columns, _ = WRITTEN[written]
    corpus = folder / "rows.jsonl"
    corpus.write_text("".join(json.dumps({"id": row} | dict(own)) + "\n" for row in range(3)))
    job = Job(
        name="counted",
        model=ModelSpec(path="nowhere"),
        task=task,
        input=InputSpec(paths=(str(corpus),)),
        output=OutputSpec(path=str(folder / "out"), format=format, prefix=prefix),
    )
    with Ledger.open(job, {"unit_rows": 3}) as ledger:
        sources = list_sources(job.input)
        record = ledger.write_plan(lambda sink: plan_units(sources, job.input, Columns(), unit_rows=3, sink=sink))
        (unit,) = ledger.pending_units(ledger.survey())
        rows = UnitReader(schema=record.schema).read_unit(unit)
        tokens = {"prompt_tokens": [10, 11, 12], "completion_tokens": [0, 0, 0]}
        results = pa.table({prefix + name: pa.array(values) for name, values in (dict(columns) | tokens).items()})
        finished = FinishedUnit(
            unit=unit,
            carried=ArrowRows(table=rows.rows.as_arrow().table) if format == "parquet" else rows.rows,
            results=results,
            failures=rows.failures,
            prompt_tokens=33,
            cached_tokens=0,
            completion_tokens=0,
            seconds=1.0,
        )
        ledger.committer().commit(finished)
    return job.output


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("prefix", ["", "out_"])
def test_the_inputs_own_columns_are_not_counted(
    written: str, format: OutputFormat, prefix: str, tmp_path: Path
) -> None:
    names = {*WRITTEN[written][1], "prompt_tokens", "completion_tokens"}
    own = {name: value for name, value in OWN.items() if prefix or name not in names}
    if prefix:  # what another run with the same prefix has left, as far as this one does not write it
        own |= {prefix + name: value for name, value in OWN.items() if name not in names}
    facts = gather(RunOutput.open(run_with(tmp_path, written, own, format, prefix), input_options={}))
    assert [(label.label, label.count) for label in facts.tasks[0].labels] == WRITTEN[written][2]
    assert facts.prompt_lengths is not None
    assert (facts.prompt_lengths.median, facts.prompt_lengths.longest) == (11, 12)
    assert set(facts.sample[0].inputs) == {"id", *own}
    assert set(facts.sample[0].outputs) == {prefix + name for name in names}


def test_a_column_that_is_read_but_not_carried_does_not_hide_the_result_of_its_name(tmp_path: Path) -> None:
    spec = run_with(tmp_path, "classify", {}, "jsonl", "")
    output = RunOutput.open(spec, input_options={})
    output.record.spec["input"]["columns"] = ["id"]
    assert output.carried == {"id"}
