"""A run of several tasks a row: each answers as it does alone, and the report and a comparison look at each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from jobs.cli import app
from jobs.report.report import gather
from jobs.report.source import RunOutput
from jobs.spec.job import load_spec
from pipelines.job import Job
from tests.helpers.pipelines.running import contents, drive, rows_in

NUM_ROWS = 24
PROMPTS = {"team": "Text: {}\nWhich team?\nCategory:", "urgent": "Text: {}\nCategory:"}
LABELS = {"team": [" billing", " shipping"], "urgent": [" now", " later"]}

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Job:
    """A job that has run, and whose output is there twice: `out-b` is as the run left it, and of `out` all units but one were computed
    again by a second run."""
    folder = tmp_path_factory.mktemp("several")
    rows = [
        {"id": row, "body": f"order {row} is late", "reply_to": None if row == 5 else f"order {row}", "truth": "now"}
        for row in range(NUM_ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.yaml").write_text(
        f"""
name: several
model: {{path: {tiny_checkpoint()}, dtype: float32}}
tasks:
  team: {{kind: classify, text: "{{{{ body }}}}", question: "Which team?", labels: [billing, shipping]}}
  urgent: {{kind: classify, text: "{{{{ body }}}}", labels: [now, later]}}
  reply: {{kind: generate, prompt: "{{{{ reply_to }}}}", sampling: {{max_tokens: 5, temperature: 0}}}}
  short: {{kind: generate, prompt: "{{{{ body }}}}", sampling: {{max_tokens: 2, temperature: 0}}}}
  vector: {{kind: embed, text: "{{{{ body }}}}", pooling: mean, normalize: false}}
partial: keep
input: {{paths: [{folder}/rows.jsonl], columns: [id, body]}}
output: {{path: {folder}/out, format: jsonl}}
report: {{truth: {{urgent: truth}}}}
engine: {{num_cpus: 1, max_num_seqs: 8}}
unit_rows: 8
"""
    )
    job = load_spec(folder / "job.yaml").job
    assert drive(job).exit_status == 0
    shutil.copytree(folder / "out", folder / "out-b")
    for receipt in sorted((folder / "out/receipts").iterdir())[1:]:
        receipt.unlink()
    assert drive(job).exit_status == 0
    return job


def test_each_task_answers_as_transformers_does(job: Job) -> None:
    rows = rows_in(Path(job.output.path))
    assert [row["id"] for row in rows] == list(range(NUM_ROWS))
    tokenizer = AutoTokenizer.from_pretrained(job.model.path)
    model: Any = AutoModelForCausalLM.from_pretrained(job.model.path, dtype=torch.float32)
    for row in rows[:8]:
        for name, prompt in PROMPTS.items():
            scores = torch.tensor(
                [score_of(model, tokenizer, prompt.format(row["body"]), text) for text in LABELS[name]]
            )
            expected = torch.softmax(scores, dim=0).tolist()
            assert list(row[f"{name}_scores"].values()) == pytest.approx(expected, abs=1e-5)
    assert rows[3]["reply_text"] == written_after(model, tokenizer, "order 3", 5)
    assert rows[3]["short_text"] == written_after(model, tokenizer, rows[3]["body"], 2)
    with torch.no_grad():
        hidden = model.model(**tokenizer(rows[3]["body"], return_tensors="pt")).last_hidden_state
    assert rows[3]["vector_embedding"] == pytest.approx(hidden[0].mean(dim=0).tolist(), abs=1e-5)
    assert [row["id"] for row in rows if row["errors"]] == [5]
    assert rows[5]["reply_text"] is None
    assert rows[5]["errors"].keys() == {"reply"}
    assert rows[5]["team_label"] in ("billing", "shipping")


def test_a_run_that_goes_on_writes_the_same_bytes(job: Job) -> None:
    assert contents(Path(job.output.path)) == contents(Path(f"{job.output.path}-b"))


def written_after(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**ids, max_new_tokens=max_tokens, do_sample=False)[0, ids.input_ids.shape[1] :]
    text: str = tokenizer.decode(written, skip_special_tokens=True)
    return text


def score_of(model: Any, tokenizer: Any, prompt: str, label: str) -> float:
    before, ids = tokenizer(prompt).input_ids, tokenizer(prompt + label).input_ids
    assert ids[: len(before)] == before, "a byte-level tokenizer changes nothing before a label"
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    return sum(float(logprobs[place - 1, ids[place]]) for place in range(len(before), len(ids)))


def test_a_report_and_a_comparison_look_at_each_task(job: Job) -> None:
    facts = gather(RunOutput.open(job.output, input_options={}), truth=job.truth)
    assert [(task.name, task.labels_of) for task in facts.tasks] == [
        ("team", "Labels of rows"),
        ("urgent", "Labels of rows"),
        ("reply", "How texts ended"),
        ("short", "How texts ended"),
        ("vector", ""),
    ]
    assert sum(label.count for label in facts.tasks[0].labels) == NUM_ROWS
    urgent = facts.tasks[1]
    num_now = sum(row["urgent_label"] == "now" for row in rows_in(Path(job.output.path)))
    assert urgent.truth is not None
    assert urgent.truth.accuracy == pytest.approx(num_now / NUM_ROWS)
    assert sum(label.count for label in facts.tasks[2].labels) == NUM_ROWS - 1
    result = CliRunner().invoke(app, ["report", job.output.path, "--truth", "urgent=truth"])
    assert result.exit_code == 0, result.output
    page = (Path(job.output.path) / "report.html").read_text()
    assert "urgent: Against the truth in truth" in page
    assert "[team]\nText: order 0 is late\nWhich team?" in page.replace("&#10;", "\n")
    result = CliRunner().invoke(app, ["compare", job.output.path, f"{job.output.path}-b"])
    assert result.exit_code == 0, result.output
    assert result.output.count("agreement      1.0000") == 4  # vectors have none
    assert result.output.count("no row differs") == 5
    for name in ("team", "urgent", "reply", "short", "vector"):
        assert f"task  {name}" in result.output
