"""What makes a run the run it is: everything that its results depend on, part by part, so that a refusal can name what changed.

    fingerprint = fingerprint_of(job, files)       # goes to Ledger.open
    differences(old, new) -> list[str]             # one line a changed part, with both values

A checkpoint counts by its content, not its place: configuration, tokenizer files and templates by their hash, safetensors files of a folder
by size, the hash of their header and of blocks spread evenly over them, which another training changes and which is read in a second;
those behind a URL by size and tag, those of the hub by their commit, since they need not be on this machine. Inputs count by path, size
and the hash of their content, or a store's tag, so that a file that was only touched is the same. What only moves speed (replicas,
batch sizes, memory) is left out, and so are storage options.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from models.checkpoint.files import DESCRIPTION_FILES, TEMPLATE_FOLDER
from models.checkpoint.found import FoundCheckpoint
from models.checkpoint.stored_tensors import MAX_HEADER_BYTES
from models.config.families import asked, family_options
from pipelines.errors import PlanError
from pipelines.formats.json_values import dump_json
from pipelines.io.inputs import describe
from pipelines.job import Job
from pipelines.task_base.task import Task
from pipelines.units.digest import block_starts
from pipelines.units.listing import SourceFile

Fingerprint = Mapping[str, Any]

MAX_FILES_LISTED = 1000

_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10
_MAX_SHOWN = 200


def fingerprint_of(
    job: Job, files: Sequence[SourceFile], checkpoints: Sequence[FoundCheckpoint] | None = None
) -> dict[str, Any]:
    """The fingerprint of `job` over the input `files`, as JSON values. `checkpoints` are where the descriptions of its models are;
    None: they are looked for.

    Raises:
        PlanError: the model's files cannot be read.
        CheckpointError: the model's place cannot be read.
    """
    found = checkpoints or [step.model.find("description") for step in job.steps]
    models = [_of_model(step, checkpoint) for step, checkpoint in zip(job.steps, found, strict=True)]
    further = {
        f"step {number}": {"below": each.below, **model}
        for number, (each, model) in enumerate(zip(job.cascade, models[1:], strict=True), 2)
    }
    parts = {
        **models[0],
        **({"cascade": further} if further else {}),
        "task": job.task.recorded(),
        **({"parts": job.parts} if job.parts else {}),
        "seed": job.seed,
        "unit_rows": job.unit_rows,
        "limit": job.limit,
        "date": job.date,
        "input": {
            "format": files[0].format,
            "columns": job.input.columns,
            "schema": job.input.schema,
            **_listing(files),
        },
        "output": {"format": job.output.format, "prefix": job.output.prefix},
    }
    as_json: dict[str, Any] = orjson.loads(dump_json(parts))
    return as_json


def _of_model(job: Job, checkpoint: FoundCheckpoint) -> dict[str, Any]:
    """What answers depend on of the model of a job, and how it is loaded."""
    options = asked(job.model.options)
    return {
        "model": _model_files(checkpoint, job.task),
        "dtype": job.model.dtype,
        "quantization": job.model.quantization,
        **{name: options.get(name) for name in family_options()},  # None, as absent, where a default is asked for
        "max_model_len": job.engine.max_model_len,
    }


def with_unit_rows(fingerprint: Fingerprint, unit_rows: int) -> Fingerprint:
    """The same of a run whose units are settled, where the job leaves their size to the run."""
    return fingerprint if fingerprint["unit_rows"] is not None else {**fingerprint, "unit_rows": unit_rows}


def _model_files(checkpoint: FoundCheckpoint, task: Task) -> dict[str, Any]:
    folder = checkpoint.folder
    templates = (f"{TEMPLATE_FOLDER}/{path.name}" for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja")))
    try:
        found: dict[str, Any] = {
            name: _hash(folder / name)
            for name in (*DESCRIPTION_FILES, *templates, *task.own_files(folder))
            if (folder / name).is_file()
        }
        if checkpoint.version is not None:
            return found | dict(checkpoint.weights)
        for path in sorted(folder.glob("*.safetensors")):
            if not path.is_fifo():  # it would be waited for
                found[path.name] = _weights(path)
    except OSError as error:
        text = f"the checkpoint's folder {folder} cannot be read: {describe(error)}"
        raise PlanError(text, place="model.path") from error
    return found


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(path: Path) -> dict[str, Any]:
    """Size, header hash and sample hash of a safetensors file: 8 bytes of header length, the header, the tensors."""
    size = path.stat().st_size
    samples = hashlib.sha256()
    with path.open("rb") as file:
        header = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES))
        for start in block_starts(file.tell(), size, _SAMPLES, _SAMPLE_BYTES):
            file.seek(start)
            samples.update(file.read(_SAMPLE_BYTES))
    return {"bytes": size, "header": hashlib.sha256(header).hexdigest(), "samples": samples.hexdigest()}


def _listing(files: Sequence[SourceFile]) -> dict[str, Any]:
    """The input files; file by file only while there are not too many to be written down each time."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(dump_json([file.path, file.relative_path, file.size, file.digest or file.tag]))
    totals = {"num_files": len(files), "num_bytes": sum(file.size for file in files), "sha256": digest.hexdigest()}
    if len(files) > MAX_FILES_LISTED:
        return totals
    return totals | {"files": {file.path: f"{file.size} bytes, version {file.digest or file.tag}" for file in files}}


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What changed between two fingerprints: one line a part, with its old and new value."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    derived = {"input.sha256", "input.num_bytes"}
    if any(name not in derived for name in changed):
        changed = [name for name in changed if name not in derived]
    return [f"{name}: {_shown(before.get(name))} -> {_shown(after.get(name))}" for name in changed]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _shown(value: Any) -> str:
    text = "absent" if value is None else dump_json(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
