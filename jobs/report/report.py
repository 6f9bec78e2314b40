"""`report.html` and `report.json` of a run, gathered from its output folder, finished or not, and written into it.

Whatever the size of the output, a bounded number of its units is opened; only receipts are read whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
import yaml

from jobs.errors import UsageError
from jobs.report.facts import GenerationShare, LabelTable, ModelShare, ReportFacts, TaskFigures, timeline
from jobs.report.page import report_page
from jobs.report.rows import (
    MAX_SAMPLE_ROWS,
    MAX_UNITS,
    failure_kinds,
    known_labels,
    row_facts,
    sample_of,
    spread,
)
from jobs.report.source import RunOutput
from jobs.report.truth import given_truth, held_against
from models.checkpoint.place import is_local, local_folder
from models.checkpoint.stored_tensors import stored_tensors
from models.config.model_config import ModelConfig
from models.errors import ModelError
from pipelines.io.open_output import open_store
from pipelines.job import OutputSpec
from pipelines.ledger.fingerprint import differences
from pipelines.ledger.receipts import RECEIPTS
from pipelines.ledger.run_record import RunRecord, read_record
from pipelines.rows.rows import StepCounts
from pipelines.task_base.judged import Truth, truth_column

PAGE, NUMBERS = "report.html", "report.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Where the page is, and why the results could not be held against the truth, if that was asked for and they could not: a text
    for each task."""

    page: str
    truth_problems: Sequence[str]


def write_report(
    spec: OutputSpec,
    *,
    input_options: Mapping[str, Any] | None = None,
    truth: Truth | None = None,
    given: Sequence[str] = (),
) -> Written:
    """Writes both files. `input_options` are the storage options of the run's input, `truth` is what results are held
    against (None: what the run was planned with, if anything); of that, `given` options go before (`given_truth`).

    Raises:
        UsageError: there is no run.
        DamageError: what the folder says of its run is not what was written.
        OutputError: the folder cannot be read or written.
    """
    output = RunOutput.open(spec, input_options=input_options or {})
    facts = gather(output, truth=given_truth(output, given, truth or output.record.truth))
    numbers = asdict(facts) | {"rows_per_s": facts.rows_per_s, "tokens_per_s": facts.tokens_per_s}
    if not facts.generations:
        del numbers["generations"]
    numbers["tasks"] = [_task_numbers(task) for task in facts.tasks]
    if not facts.tasks[0].name:  # of one task they stand among the others
        numbers |= numbers.pop("tasks")[0]
    output.store.write(NUMBERS, orjson.dumps(numbers, option=orjson.OPT_INDENT_2))
    output.store.write(PAGE, report_page(facts).encode(errors="replace"))
    problems = [task.truth_problem for task in facts.tasks if task.truth_problem is not None]
    return Written(page=f"{output.store.location}/{PAGE}", truth_problems=problems)


def _task_numbers(task: TaskFigures) -> dict[str, Any]:
    numbers = asdict(task)
    if not task.name:
        del numbers["name"]
    if task.truth is not None:
        numbers["truth"]["labels"] = [
            asdict(label) | {"precision": label.precision, "recall": label.recall, "f1": label.f1}
            for label in task.truth.labels
        ]
    return numbers


def is_planned(spec: OutputSpec) -> bool:
    """Whether the folder has a run to report on: one that was interrupted while it planned has not."""
    return read_record(open_store(spec)) is not None


def gather(output: RunOutput, *, truth: Truth | None = None) -> ReportFacts:
    """Everything a report says; `truth` is what results are held against."""
    record = output.record
    receipts = output.receipts(output.store.times(RECEIPTS))
    computed = receipts.prompt_tokens + receipts.completion_tokens - receipts.cached_tokens
    throughput, active_s = timeline(
        committed=receipts.committed,
        seconds=receipts.seconds,
        rows=receipts.written + receipts.failed,
        tokens=computed,
    )
    with_rows = receipts.units[receipts.written > 0]
    with_failures = spread(receipts.units[receipts.failed > 0], MAX_UNITS)
    counted = spread(with_rows, MAX_UNITS)
    config = _config(record.spec["model"])
    class_names = () if config is None else tuple(config.id2label.values())
    known = {name: known_labels(part, counted, class_names) for name, part in output.parts().items()}
    rows = row_facts(output, counted, known)
    return ReportFacts(
        name=record.name,
        output=output.store.location,
        version=record.versions["millrace"],
        units_total=record.plan.num_units,
        units_done=len(receipts.units),
        units_failed=len(output.unreadable_units()),
        rows_total=record.plan.num_rows,
        rows_written=_sum(receipts.written),
        rows_failed=_sum(receipts.failed),
        prompt_tokens=_sum(receipts.prompt_tokens),
        cached_tokens=_sum(receipts.cached_tokens),
        completion_tokens=_sum(receipts.completion_tokens),
        active_s=active_s,
        models=_models(record, receipts.steps),
        generations=_generations(record, receipts.generations),
        counted_rows=rows.num_rows,
        timeline=throughput,
        prompt_lengths=rows.prompt_lengths,
        completion_lengths=rows.completion_lengths,
        tasks=_tasks(output, truth, counted, known, rows.labels),
        counted_failures=_sum(receipts.failed[np.isin(receipts.units, with_failures)]),
        failures=failure_kinds(output, with_failures),
        sample=sample_of(output, output.units(spread(with_rows, MAX_SAMPLE_ROWS))),
        prompt=output.prompt,
        model=_model_facts(record.spec["model"], config),
        spec=yaml.safe_dump(_set_values(record.spec), sort_keys=False, allow_unicode=True, width=100),
    )


def _models(record: RunRecord, steps: Sequence[StepCounts]) -> list[ModelShare]:
    """What each model of a cascade did; nothing without one."""
    return [
        ModelShare(
            name=name,
            until=until,
            rows_asked=step.num_asked,
            rows_kept=step.num_kept,
            prompt_tokens=step.prompt_tokens,
            cached_tokens=step.cached_tokens,
        )
        for name, until, step in zip(record.step_names, (*record.bounds, None), steps, strict=False)
    ]


def _generations(record: RunRecord, num_rows: Mapping[int, int]) -> list[GenerationShare]:
    """The later generations of the spec, with how many rows are of each."""
    return [
        GenerationShare(
            generation=number, rows=num_rows.get(number, 0), changes=differences(record.fingerprint, each.fingerprint)
        )
        for number, each in enumerate(record.generations, 1)
    ]


def _sum(values: "np.ndarray[Any, np.dtype[np.float64]]") -> int:
    return int(values.sum())


def _tasks(
    output: RunOutput,
    truth: Truth | None,
    units: Sequence[int],
    known: Mapping[str, Sequence[str]],
    tables: Mapping[str, LabelTable],
) -> list[TaskFigures]:
    """What each task gave the rows of `units`, held against its truth: a report that cannot do that has more to say."""
    figures = []
    for name, part in output.parts().items():
        table, held, problem = tables[name], None, None
        try:
            if (column := truth_column(truth, name)) is not None:
                held = held_against(part, column, units, known[name])
        except UsageError as error:
            problem = f"report.truth{f'.{name}' if name else ''}: {error}"
        figures.append(
            TaskFigures(
                name=name,
                labels_of=table.labels_of,
                num_labels=table.num_labels,
                labels=table.labels,
                truth=held,
                truth_problem=problem,
            )
        )
    return figures


def _config(model: Mapping[str, Any]) -> ModelConfig | None:
    """The checkpoint's configuration; None if it is no longer there, or was never a folder of this machine."""
    if not is_local(model["path"]):
        return None
    try:
        return ModelConfig.from_pretrained(model["path"])
    except ModelError:
        return None


def _model_facts(model: Mapping[str, Any], config: ModelConfig | None) -> dict[str, str]:
    """The checkpoint in a few lines; its path alone where there is no configuration of it, or no weights."""
    folder = model["path"]
    facts = {"path": folder}
    if config is None:
        return facts
    try:
        tensors = stored_tensors(local_folder(folder))
    except ModelError:
        return facts
    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    facts |= {
        "architecture": config.architecture,
        "parameters": f"{parameters:,}",
        "dtype": config.dtype if model["dtype"] == "auto" else model["dtype"],
        "layers": f"{config.num_hidden_layers}, hidden size {config.hidden_size:,}",
        "context": f"{config.max_position_embeddings:,} tokens",
    }
    if config.head != "causal":
        facts["classes"] = ", ".join(config.id2label.values())
    return facts


def _set_values(spec: Any) -> Any:
    """The spec without keys that nobody set."""
    if isinstance(spec, Mapping):
        return {name: _set_values(value) for name, value in spec.items() if value is not None and value not in ({}, [])}
    return [_set_values(item) for item in spec] if isinstance(spec, list) else spec
