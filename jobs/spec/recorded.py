"""The job of an output folder, from what its run has recorded of it: for commands that are given
the folder alone.

    document_of_run(record) -> values                    # as a spec writes them
    recorded_specs(...) -> RecordedSpecs                 # as it was planned, and with `--set`

A record has no storage options: they come with a spec, or one by one.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.errors import SpecError, UsageError
from jobs.spec.changes import refused_changes
from jobs.spec.document.places import document_of
from jobs.spec.job import LoadedSpec, spec_in
from models.checkpoint.url_secrets import public_url
from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.job import EngineSpec, Job, OutputSpec
from pipelines.ledger.run_record import RUN, RunRecord
from pipelines.parts.template import PARTS, with_parts
from pipelines.tasks.kinds import KINDS
from pipelines.tasks.several.task import SeveralTask

PRINTED: Final = f"{{{{ {PARTS} }}}}"
"""Where the parts stood that a record has in their places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedSpecs:
    """The job that an output was planned with, the one that its rows are tried again with, and the
    date that is told to chat templates."""

    planned: LoadedSpec
    changed: LoadedSpec
    date: dt.date | None


def recorded_specs(
    record: RunRecord,
    output: OutputSpec,
    given: Job | None,
    *,
    overrides: Sequence[str],
    allows_changes: bool,
) -> RecordedSpecs:
    """Both jobs of the run in `output`, with the storage options of `output` and of the job that
    was `given`, if any.

    Raises:
        UsageError: the record is of a version whose specs this one does not read.
        SpecError: what is set does not fit, or would have good rows mean something else.
    """
    limit, name = record.spec.get("limit"), f"{output.path}/{RUN}"
    try:
        values = _with_storage(document_of_run(record), output, given)
        planned = spec_in(document_of(values, name), limit=limit)
    except (SpecError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{name} was written by Millrace {record.versions['millrace']}, and this version cannot retry it: "
            f"{type(error).__name__ if not isinstance(error, SpecError) else error}; retry with that version"
        ) from error
    changed = spec_in(document_of(values, name, overrides), limit=limit) if overrides else planned
    problems = refused_changes(planned.written, changed.written, changed.places, allows_changes=allows_changes)
    if problems:
        raise SpecError(problems)
    return RecordedSpecs(planned=planned, changed=changed, date=record.date)


def document_of_run(record: RunRecord) -> dict[str, Any]:
    """A spec as people write it, from the one in a run's record: of its keys those that were
    set."""
    spec = record.spec
    document: dict[str, Any] = {
        "name": spec["name"],
        "input": _set_keys(spec["input"]),
        "output": _set_keys(spec["output"]),
        "max_failed": _max_failed(spec["max_failed"]),
        **_models(spec),
        **_task(record),
    }
    document |= {
        key: spec[key] for key in ("unit_rows", "seed", "dedup", "date", "report") if spec.get(key) is not None
    }
    if spec["input"]["format"] == BATCH_FORMAT:
        del document["input"]["columns"]
    return document


def _set_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _max_failed(recorded: Mapping[str, Any] | None) -> int | str | None:
    if recorded is None:
        return None
    count: int | None = recorded["count"]
    return f"{recorded['fraction'] * 100:.9f}%" if count is None else count


def _task(record: RunRecord) -> dict[str, Any]:
    """`task`, `tasks` with what goes with them, or nothing, as for a batch file; and their `parts`."""
    task = record.spec["task"]
    if task["kind"] == SeveralTask.kind:
        found = {"tasks": {name: _keys_of(one) for name, one in task["tasks"].items()}, "partial": task["partial"]}
    else:
        found = {"task": _keys_of(task)} if task["kind"] in KINDS else {}
    if record.parts_order is None:
        return found
    in_order = with_parts(PRINTED, [record.parts[number] for number in record.parts_order])
    return {**_replaced(found, in_order, PRINTED), "parts": list(record.parts)}


def _replaced(value: Any, text: str, by: str) -> Any:
    """The value with one text in the place of another, wherever it stands."""
    if isinstance(value, str):
        return value.replace(text, by)
    if isinstance(value, Mapping):
        return {key: _replaced(inner, text, by) for key, inner in value.items()}
    return [_replaced(inner, text, by) for inner in value] if isinstance(value, list) else value


def _keys_of(task: Mapping[str, Any]) -> dict[str, Any]:
    return KINDS[task["kind"]].keys_of(task)


def _models(spec: Mapping[str, Any]) -> dict[str, Any]:
    """`model` with `engine`, or `cascade` with what the engines of all steps have in common."""
    model, engine = _set_keys(spec["model"]), _engine(spec["engine"])
    further = spec.get("cascade") or ()
    if not further:
        return {"model": model, "engine": engine}
    engines = [engine, *(_engine(each["engine"]) for each in further)]
    common = {key: value for key, value in engine.items() if all(each.get(key) == value for each in engines)}
    steps = [{"model": each} for each in (model, *(_set_keys(each["model"]) for each in further))]
    for step, own in zip(steps, engines, strict=True):
        step["engine"] = {key: value for key, value in own.items() if key not in common}
    for step, behind in zip(steps, further, strict=False):
        step["until"] = {"score": behind["below"]}
    return {"cascade": steps, "engine": common}


def _engine(recorded: Mapping[str, Any]) -> dict[str, Any]:
    default = EngineSpec()
    keys = {key: value for key, value in recorded.items() if value != getattr(default, key)}
    least, most = keys.pop("replicas", default.replicas), keys.pop("max_replicas", None)
    if most is not None:
        keys["replicas"] = {"min": least, "max": most}
    elif least != default.replicas:
        keys["replicas"] = least
    return keys


def _with_storage(document: dict[str, Any], output: OutputSpec, given: Job | None) -> dict[str, Any]:
    """The document at the place of `output`, with the options that reach it, its input and its
    models."""
    document["output"] |= {"path": output.path, "storage_options": dict(output.storage_options)}
    if given is None:
        return document
    document["input"]["storage_options"] = dict(given.input.storage_options)
    if [public_url(path) for path in given.input.paths] == document["input"]["paths"]:
        document["input"]["paths"] = list(given.input.paths)  # with what signs them, which a record leaves out
    options = {step.model.path: dict(step.model.storage_options) for step in given.steps}
    for holder in document.get("cascade", [document]):
        holder["model"]["storage_options"] = options.get(holder["model"]["path"], {})
    return document
