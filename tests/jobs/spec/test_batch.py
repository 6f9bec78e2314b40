"""Specs of batch files: no task, an output of the same kind, and what does not go with them refused at its place."""

from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec.job import load_spec
from pipelines.tasks.batch import BatchTask
from pipelines.tasks.kinds import KINDS, recorded_task

SPEC = """\
name: questions
model: {path: m}
input: {paths: [requests.jsonl], format: openai-batch}
output: {path: out, format: openai-batch}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    return file


def test_the_lines_are_the_task(tmp_path: Path) -> None:
    job = load_spec(written(tmp_path, SPEC)).job
    assert job.task == BatchTask()
    assert job.input.columns == ()
    assert recorded_task(job.task.recorded()) is BatchTask
    assert "batch" not in KINDS


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name:", "task: {kind: generate, prompt: x}\nname:", ":1: task: stands beside input.format: openai-batch"),
        ("out, format: openai-batch", "out", ":4: output.format: was parquet; the answers to a batch file"),
        (
            "out, format: openai-batch",
            "out, format: jsonl",
            ":4: output.format: was jsonl; the answers to a batch file",
        ),
        ("jsonl], format: openai-batch", "jsonl], format: jsonl", ": task: this key is required and missing"),
        ("out, format", "out, prefix: x, format", ":4: output.prefix: has no meaning for a batch file"),
        ("jsonl], format", "jsonl], columns: [a], format", ":3: input.columns: has no meaning for a batch file"),
        ("jsonl], format", "jsonl], columns: [], format", ":3: input.columns: has no meaning for a batch file"),
        ("jsonl], format", "jsonl], schema: {a: string}, format", ":3: input.schema: has no meaning for a batch file"),
        (
            "name:",
            "engine: {service: chat}\nname:",
            ":1: engine.service: a batch file is computed by engines of the job",
        ),
    ],
)
def test_what_does_not_go_with_a_batch_file_is_refused_at_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(written(tmp_path, SPEC.replace(old, new, 1)))
    assert said in str(raised.value)


def test_the_output_of_a_batch_is_for_batch_files_alone(tmp_path: Path) -> None:
    text = SPEC.replace("format: openai-batch", "format: jsonl", 1) + "task: {kind: generate, prompt: x}\n"
    with pytest.raises(SpecError, match=r"output\.format: was openai-batch; it is for input\.format"):
        load_spec(written(tmp_path, text))


def test_a_kind_that_is_implied_cannot_be_written(tmp_path: Path) -> None:
    text = SPEC.replace("openai-batch", "jsonl") + "task: {kind: batch}\n"
    with pytest.raises(SpecError, match="was 'batch'; it must be generate"):
        load_spec(written(tmp_path, text))
