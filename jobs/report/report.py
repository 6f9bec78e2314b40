"""`report.html` and `report.json` of a run, gathered from its output folder, finished or not, and written into it.

Whatever the size of the output, a bounded number of its units is opened; only receipts are read whole.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import yaml

from jobs.report.facts import ReportFacts, timeline
from jobs.report.page import report_page
from jobs.report.rows import MAX_SAMPLE_ROWS, MAX_UNITS, failure_kinds, row_facts, sample_of, spread
from jobs.report.source import RunOutput
from models.checkpoint.place import is_local, local_folder
from models.checkpoint.stored_tensors import stored_tensors
from models.config.model_config import ModelConfig
from models.errors import ModelError
from pipelines.io.open_output import open_store
from pipelines.job import OutputSpec
from pipelines.ledger.receipts import RECEIPTS
from pipelines.ledger.run_record import read_record

PAGE, NUMBERS = "report.html", "report.json"


def write_report(spec: OutputSpec, *, input_options: Mapping[str, Any] | None = None) -> str:
    """Writes both files and returns where the page is. `input_options` are the storage options of the run's input.

    Raises:
        UsageError: there is no run.
        DamageError: what the folder says of its run is not what was written.
        OutputError: the folder cannot be read or written.
    """
    output = RunOutput.open(spec, input_options=input_options or {})
    facts = gather(output)
    numbers = asdict(facts) | {"rows_per_s": facts.rows_per_s, "tokens_per_s": facts.tokens_per_s}
    output.store.write(NUMBERS, orjson.dumps(numbers, option=orjson.OPT_INDENT_2))
    output.store.write(PAGE, report_page(facts).encode(errors="replace"))
    return f"{output.store.location}/{PAGE}"


def is_planned(spec: OutputSpec) -> bool:
    """Whether the folder has a run to report on: one that was interrupted while it planned has not."""
    return read_record(open_store(spec)) is not None


def gather(output: RunOutput) -> ReportFacts:
    """Everything a report says."""
    record = output.record
    receipts = output.receipts(output.store.times(RECEIPTS))
    tokens = receipts.prompt_tokens + receipts.completion_tokens
    throughput, active_s = timeline(
        committed=receipts.committed,
        seconds=receipts.seconds,
        rows=receipts.written + receipts.failed,
        tokens=tokens,
    )
    with_rows = receipts.units[receipts.written > 0]
    with_failures = spread(receipts.units[receipts.failed > 0], MAX_UNITS)
    rows = row_facts(output, spread(with_rows, MAX_UNITS))
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
        counted_rows=rows.num_rows,
        timeline=throughput,
        prompt_lengths=rows.prompt_lengths,
        completion_lengths=rows.completion_lengths,
        labels_of=rows.labels_of,
        labels=rows.labels,
        counted_failures=_sum(receipts.failed[np.isin(receipts.units, with_failures)]),
        failures=failure_kinds(output, with_failures),
        sample=sample_of(output, output.units(spread(with_rows, MAX_SAMPLE_ROWS))),
        prompt=output.prompt,
        model=_model_facts(record.spec["model"]),
        spec=yaml.safe_dump(_set_values(record.spec), sort_keys=False, allow_unicode=True, width=100),
    )


def _sum(values: "np.ndarray[Any, np.dtype[np.float64]]") -> int:
    return int(values.sum())


def _model_facts(model: Mapping[str, Any]) -> dict[str, str]:
    """The checkpoint in a few lines; its path alone if it is no longer there, or was never a folder of this machine."""
    folder = model["path"]
    facts = {"path": folder}
    if not is_local(folder):
        return facts
    try:
        config, tensors = ModelConfig.from_pretrained(folder), stored_tensors(local_folder(folder))
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
