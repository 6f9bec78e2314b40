"""Retries on a Ray cluster, with engines that need no model: what they are asked, how they end,
and what the output holds then."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from actors.work import EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnFailure
from pipelines.errors import LeaseError, PlanError
from pipelines.graph.engine_actor import MakeEngine
from pipelines.io.open_output import open_store
from pipelines.job import EngineSpec, Escalation, Job, ModelSpec
from pipelines.ledger.check import check_run
from pipelines.ledger.lease import Lease
from pipelines.ledger.progress import Progress, RunSummary
from pipelines.retry.asked import RetryAsked
from pipelines.retry.driver import retry
from pipelines.retry.selection import Selection
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.batches import TEXTS, line, lines_of, spec_of
from tests.helpers.pipelines.fake_engines import (
    FakeEngine,
    engine_that_dies_once,
    fake_engine,
    logits,
    unloadable_engine,
)
from tests.helpers.pipelines.running import drive, job_of, rows_in, write_corpus

NUM_ROWS, UNIT_ROWS = 24, 6
CLASSIFY = ClassifyTask(text="{{ body }}")
LONG, NULL = (2, 8, 9, 20), (11,)
BOUND = 0.7
"""Scores of fake engines are on both sides of it."""
Checkpoint = Callable[..., Path]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which some are too long for 96 tokens, and one has no text."""
    long = {row: json.dumps({"id": row, "body": f"{row} alpha " * 20}).encode() for row in LONG}
    null = {row: json.dumps({"id": row, "body": None}).encode() for row in NULL}
    return write_corpus(tmp_path_factory.mktemp("corpus") / "rows.jsonl", NUM_ROWS, bad=long | null)


@pytest.fixture
def model(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint in which engines may leave their marks."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_checkpoint("sequence-classification", max_position_embeddings=512).iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def job(model: Path, corpus: Path, tmp_path: Path) -> Job:
    return with_length(job_of(CLASSIFY, model=model, corpus=corpus, out=tmp_path / "out", unit_rows=UNIT_ROWS), 96)


def with_length(job: Job, length: int) -> Job:
    return replace(job, engine=EngineSpec(num_cpus=1, max_num_seqs=16, max_model_len=length))


def tried(job: Job, planned: Job, make_engine: MakeEngine = fake_engine, **asked: Any) -> RunSummary:
    return retry(job, RetryAsked(planned=planned, **asked), make_engine=make_engine)


def out_of(job: Job) -> Path:
    return Path(job.output.path)


def letters(job: Job) -> dict[int, tuple[str, int]]:
    return {letter["row"]: (letter["kind"], letter["attempts"]) for letter in rows_in(out_of(job), "errors")}


class _Counting(FakeEngine):
    """Notes how many requests a unit has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        (self._folder / work.name.replace("/", ".")).write_text(str(work.num_requests))
        return await super().compute(work, on_answered)


def counting_engine(folder: Path, settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Counting(folder)


def test_engines_are_asked_for_the_rows_that_are_tried_and_no_others(job: Job, tmp_path: Path) -> None:
    assert drive(job, make_engine=fake_engine).exit_status == 0
    assert letters(job) == dict.fromkeys(LONG, ("too_long", 0)) | dict.fromkeys(NULL, ("null_value", 0))
    (tmp_path / "counts").mkdir()
    count = partial(counting_engine, tmp_path / "counts")
    longer, seen = with_length(job, 512), list[Progress]()
    asked = RetryAsked(planned=job, selection=Selection(kinds=("too_long",)))
    summary = retry(longer, asked, make_engine=count, on_progress=seen.append)
    assert (summary.exit_status, summary.message) == (
        0,
        "4 of 4 dead letters tried again, 4 have results now; 1 dead letters are left",
    )
    counts = {path.name.partition(".")[0]: int(path.read_text()) for path in (tmp_path / "counts").iterdir()}
    assert counts == {"unit-0": 1, "unit-1": 2, "unit-3": 1}
    done = summary.progress
    assert (done.rows_done, done.rows_total, done.rows_failed, done.units_done, done.units_total) == (4, 4, 0, 3, 3)
    assert {progress.rows_total for progress in seen} == {4}
    assert [row["id"] for row in rows_in(out_of(job))] == [row for row in range(NUM_ROWS) if row not in NULL]

    # What is not asked for, or is bad as it was, starts no engine, or changes nothing but its attempts.
    assert tried(longer, job, unloadable_engine, selection=Selection(kinds=("too_long",))).exit_status == 0
    again = tried(job, job)
    assert again.message == "1 of 1 dead letters tried again, 0 have results now; 1 dead letters are left"
    assert letters(job) == {11: ("null_value", 1)}
    assert drive(job, make_engine=unloadable_engine).exit_status == 0
    assert check_run(open_store(job.output)) == []

    store = open_store(job.output)
    with Lease.take(store), pytest.raises(LeaseError, match="another run holds"):
        tried(job, job)


@pytest.mark.slow
def test_a_retry_whose_engine_dies_and_one_that_is_interrupted_come_to_the_same_end(job: Job) -> None:
    assert drive(job, make_engine=fake_engine).exit_status == 0
    other, fresh = (replace(job, output=replace(job.output, path=f"{job.output.path}-{name}")) for name in "ab")
    shutil.copytree(out_of(job), out_of(other))
    too_long = Selection(kinds=("too_long",))
    assert tried(with_length(job, 512), job, engine_that_dies_once, selection=too_long).exit_status == 0
    assert (Path(job.model.path) / "an-engine-died").exists()

    def interrupt(progress: Progress) -> None:
        if progress.units_done:
            raise KeyboardInterrupt

    asked = RetryAsked(planned=other, selection=too_long)
    stopped = retry(with_length(other, 512), asked, make_engine=fake_engine, on_progress=interrupt)
    assert stopped.exit_status == 130
    left = [row for row, (kind, _) in letters(other).items() if kind == "too_long"]
    assert len(left) < len(LONG)
    rest = tried(with_length(other, 512), other, selection=too_long)
    assert (rest.exit_status, rest.progress.rows_done) == (0, len(left))
    assert drive(with_length(fresh, 512), make_engine=fake_engine).exit_status == 0
    for retried in (job, other):
        assert rows_in(out_of(retried)) == rows_in(out_of(fresh))
        assert check_run(open_store(retried.output)) == []


@pytest.mark.slow
def test_the_rows_of_a_cascade_go_through_its_models_again(job: Job, tiny_checkpoint: Checkpoint) -> None:
    other = tiny_checkpoint("sequence-classification", max_position_embeddings=512, initializer_range=0.4)

    def cascade(length: int) -> Job:
        further = Escalation(
            below=BOUND,
            model=ModelSpec(path=str(other), dtype="float32"),
            engine=EngineSpec(num_cpus=1, max_num_seqs=16, max_model_len=length),
        )
        return replace(with_length(job, length), cascade=(further,))

    planned, longer = cascade(96), cascade(512)
    assert drive(planned, make_engine=fake_engine).exit_status == 0
    before = {row["id"]: row for row in rows_in(out_of(job))}
    assert {kind for kind, _ in letters(planned).values()} == {"too_long", "null_value"}
    assert tried(longer, planned, selection=Selection(kinds=("too_long",))).exit_status == 0
    after = {row["id"]: row for row in rows_in(out_of(job))}
    assert [*after] == [row for row in range(NUM_ROWS) if row not in NULL]
    assert {row: after[row] for row in before} == before
    tokenizer = AutoTokenizer.from_pretrained(other)
    for row in LONG:
        odds = np.exp(logits(tokenizer(f"{row} alpha " * 20)["input_ids"]).astype(np.float64))
        sure = odds.max() / odds.sum()
        assert after[row]["score"] == pytest.approx(sure, abs=1e-6)
        assert after[row]["model"] == planned.step_names[0 if sure >= BOUND else 1]
    assert check_run(open_store(planned.output)) == []
    kept = [receipt["steps"] for receipt in receipts_of(longer)]
    assert sum(step["num_kept"] for steps in kept for step in steps) == NUM_ROWS - len(NULL)
    assert [len(steps) for steps in kept] == [2] * 4


def receipts_of(job: Job) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((out_of(job) / "receipts").iterdir())]


@pytest.mark.slow
def test_the_whole_files_of_a_batch_are_put_together_anew(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompts = {"first": "a b", "long": "a b " * 20, "last": "b a"}
    lines = [line(name, TEXTS, prompt=text, max_tokens=3, temperature=0) for name, text in prompts.items()]
    lines.insert(2, line("refused", TEXTS, prompt="x", colour="red"))
    job = spec_of(tmp_path, tiny_checkpoint(max_position_embeddings=512), lines).job
    short, longer = (replace(job, engine=replace(job.engine, max_model_len=length)) for length in (16, 256))
    assert drive(short).exit_status == 0
    assert whole_files(tmp_path) == (["first", "last"], ["long", "refused"])
    before = {answer["custom_id"]: answer for answer in lines_of(tmp_path / "out/output.jsonl")}
    assert retry(longer, RetryAsked(planned=short)).exit_status == 0
    assert whole_files(tmp_path) == (["first", "long", "last"], ["refused"])
    after = {answer["custom_id"]: answer for answer in lines_of(tmp_path / "out/output.jsonl")}
    assert {name: after[name] for name in before} == before
    assert after["long"]["response"]["body"]["usage"]["completion_tokens"] == 3
    assert check_run(open_store(job.output)) == []


def whole_files(folder: Path) -> tuple[list[str], list[str]]:
    """Which lines have answers, and which have errors."""
    found = [lines_of(folder / f"out/{name}.jsonl") for name in ("output", "errors")]
    return [each["custom_id"] for each in found[0]], [each["custom_id"] for each in found[1]]


def test_an_output_without_a_run_is_refused(job: Job) -> None:
    with pytest.raises(PlanError, match="has no run that was planned to its end"):
        tried(job, job)
