"""A kind of task that is one module of the tests, and its line in the table: from a spec to the rows of a run and its report."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import SpecError
from jobs.report.report import gather
from jobs.report.source import RunOutput
from jobs.spec.job import load_spec
from pipelines.tasks.kinds import KINDS
from tests.helpers.pipelines.margin_task import SURE, MarginTask, MarginYaml
from tests.helpers.pipelines.running import drive, rows_in

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

WORDS = ("order", "late", "refund", "thanks", "broken", "parcel")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "margin", MarginYaml)


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> Path:
    model = tiny_checkpoint("sequence-classification")
    lines = ["id,body\n", *(f"{row},{WORDS[row % 6]} {WORDS[row // 6]}\n" for row in range(30))]
    (tmp_path / "rows.csv").write_text("".join(lines))
    file = tmp_path / "margins.yaml"
    file.write_text(
        f"name: margins\nmodel: {{path: {model}}}\ntask: {{kind: margin, text: 'about: {{{{ body }}}}'}}\n"
        f"input: {{paths: [{tmp_path}/rows.csv]}}\noutput: {{path: {tmp_path}/out, format: jsonl}}\n"
    )
    return file


@pytest.mark.usefixtures("table")
def test_a_kind_of_ones_own_runs_from_its_spec_to_its_report(spec: Path, tmp_path: Path) -> None:
    job = load_spec(spec).job
    assert drive(job).exit_status == 0
    rows = rows_in(tmp_path / "out")
    assert [row["id"] for row in rows] == [str(row) for row in range(30)]

    tokenizer = AutoTokenizer.from_pretrained(job.model.path)
    network = AutoModelForSequenceClassification.from_pretrained(job.model.path, dtype=torch.float32)
    for row in rows:
        with torch.no_grad():
            logits = network(**tokenizer(f"about: {row['body']}", return_tensors="pt")).logits[0]
        best, second = logits.softmax(dim=-1).topk(2).values.tolist()
        assert row["margin"] == pytest.approx(best - second, abs=1e-5)

    facts = gather(RunOutput.open(job.output, input_options={}))
    assert facts.tasks[0].labels_of == "Sureness"
    num_sure = sum(row["margin"] > SURE for row in rows)
    assert {label.label: label.count for label in facts.tasks[0].labels} == {
        label: count for label, count in (("sure", num_sure), ("unsure", 30 - num_sure)) if count
    }


def test_the_spec_knows_the_kinds_of_the_table_and_no_other(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="was 'margin'; it must be generate, classify"):
        load_spec(spec)
    monkeypatch.setitem(KINDS, "margin", MarginYaml)
    assert load_spec(spec).job.task == MarginTask(text="about: {{ body }}")
