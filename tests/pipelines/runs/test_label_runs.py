"""Runs that label with a causal model: what is asked before all rows, and what a run of before is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Scorer
from pipelines.errors import FingerprintError
from pipelines.formats.schema import Columns
from pipelines.job import OutputSpec
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.run_record import RUN
from pipelines.tasks.labels.task import LabelsTask
from pipelines.units.digest import with_digests
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from tests.helpers.pipelines.fake_engines import engine_without_trial, fake_engine, unloadable_engine
from tests.helpers.pipelines.running import contents, drive, job_of, rows_in, write_corpus

Checkpoint = Callable[..., Path]
LABELS = ("refund", "late")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "rows.jsonl", 60)


def test_a_prior_is_found_once_for_a_run(tiny_checkpoint: Checkpoint, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    task = LabelsTask(text="{{ body }}", labels=LABELS, calibrate="prior")
    job = job_of(task, model=tiny_checkpoint(), corpus=corpus, out=out, unit_rows=20)
    assert drive(job, make_engine=fake_engine).exit_status == 0
    whole = contents(out)
    trial = json.loads((out / RUN).read_bytes())["trial"]
    assert np.exp(trial).sum() == pytest.approx(1)
    for receipt in sorted((out / "receipts").iterdir())[1:]:
        receipt.unlink()
    assert drive(job, make_engine=engine_without_trial).exit_status == 0
    assert contents(out) == whole
    plain = replace(
        job, task=replace(task, calibrate="none"), output=OutputSpec(path=str(tmp_path / "p"), format="jsonl")
    )
    assert drive(plain, make_engine=fake_engine).exit_status == 0
    for row, other in zip(rows_in(out), rows_in(tmp_path / "p"), strict=True):
        odds = np.array([other["scores"][label] for label in LABELS]) / np.exp(trial)
        assert [row["scores"][label] for label in LABELS] == pytest.approx((odds / odds.sum()).tolist(), abs=1e-5)
    assert "trial" not in json.loads((tmp_path / "p" / RUN).read_bytes())


def test_labels_behind_a_prompt_are_those_of_the_scorer(
    tiny_checkpoint: Checkpoint, corpus: Path, tmp_path: Path
) -> None:
    """Rows that end in a space have other tokens of labels behind them than the others, in one unit."""
    model = tiny_checkpoint()
    rows = [{"body": "alpha beta"}, {"body": "alpha "}, {"body": "late"}, {"body": "order "}]
    given = tmp_path / "rows.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = LabelsTask(prompt="Topic {{ body }}", labels=LABELS, label_mass=True)
    job = job_of(task, model=model, corpus=given, out=tmp_path / "out")
    assert drive(job).exit_status == 0
    scorer = Scorer.from_pretrained(model, dtype="float32")
    assert scorer.tokenizer is not None
    for row, found in zip(rows, rows_in(tmp_path / "out"), strict=True):
        logprobs = []
        prompt = f"Topic {row['body']}"
        wholes = [scorer.tokenizer.encode(prompt + label) for label in LABELS]
        common = _common([scorer.tokenizer.encode(prompt), *wholes])
        for whole in wholes:
            logits = scorer.score([whole])[0].log_softmax(-1)
            logprobs.append(sum(float(logits[at - 1, whole[at]]) for at in range(common, len(whole))))
        mass = float(np.exp(logprobs).sum())
        assert found["label_mass"] == pytest.approx(mass, rel=1e-4)
        shares = (np.exp(logprobs) / mass).tolist()
        assert [found["scores"][label] for label in LABELS] == pytest.approx(shares, abs=1e-5)


def _common(lists: list[list[int]]) -> int:
    together = zip(*lists, strict=False)
    return next((place for place, tokens in enumerate(together) if len(set(tokens)) > 1), min(map(len, lists)))


def test_an_engine_that_cannot_be_started_ends_a_run_that_asks_first(
    tiny_checkpoint: Checkpoint, corpus: Path, tmp_path: Path
) -> None:
    task = LabelsTask(text="{{ body }}", labels=LABELS, calibrate="prior")
    job = job_of(task, model=tiny_checkpoint(), corpus=corpus, out=tmp_path / "out", unit_rows=20)
    summary = drive(job, make_engine=unloadable_engine)
    assert summary.exit_status == 1
    assert "no room for the weights" in summary.message


def test_a_run_that_was_begun_with_another_built_in_prompt_is_refused(
    tiny_checkpoint: Checkpoint, corpus: Path, tmp_path: Path
) -> None:
    """Its record has the keys there were then, which say nothing of the prompt."""
    out = tmp_path / "out"
    task = LabelsTask(text="{{ body }}", labels=LABELS)
    job = job_of(task, model=tiny_checkpoint(), corpus=corpus, out=out, unit_rows=20)
    files = with_digests(list_sources(job.input))
    with Ledger.open(job, fingerprint_of(job, files)) as ledger:
        record = ledger.write_plan(lambda sink: plan_units(files, job.input, Columns(), unit_rows=20, sink=sink))
    fingerprint: dict[str, Any] = json.loads(json.dumps(record.fingerprint))
    fingerprint["task"] = {name: value for name, value in fingerprint["task"].items() if name in _KEYS_OF_BEFORE}
    (out / RUN).write_bytes(replace(record, fingerprint=fingerprint).to_json())
    with pytest.raises(FingerprintError, match=r'task\.form: absent -> "text-') as caught:
        drive(job, make_engine=fake_engine)
    assert [line for line in str(caught.value).splitlines() if "->" in line][1:] == [
        '  task.form: absent -> "text-category"'
    ]


_KEYS_OF_BEFORE = (
    "kind", "text", "labels", "question", "windows", "window", "stride", "allow_special_tokens",
)  # fmt: skip
