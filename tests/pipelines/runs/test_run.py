"""Whole runs on a Ray cluster, with real engines on tiny checkpoints and with engines that misbehave."""

import datetime as dt
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.report.report import write_report
from pipelines.errors import FingerprintError, LeaseError, TaskError
from pipelines.graph.engine_actor import MakeEngine
from pipelines.io.open_output import open_store
from pipelines.job import InputSpec, Job, MaxFailed, OutputSpec
from pipelines.ledger.lease import Lease
from pipelines.ledger.progress import ExitStatus, Progress, RunSummary
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels.task import LabelsTask
from pipelines.units.listing import PassedOver
from pipelines.units.plan_on_ray import map_in_tasks
from tests.helpers.faulty_store import Fault, FaultyStore, refuse
from tests.helpers.pipelines.fake_engines import (
    engine_that_cannot_come_back,
    engine_that_dies_loading,
    engine_that_dies_once,
    failing_engine,
    fake_engine,
    helpless_engine,
    killed_engine,
    patient_engine,
    tripping_engine,
    unloadable_engine,
)
from tests.helpers.pipelines.killing import wait_until
from tests.helpers.pipelines.running import contents, drive, job_of, receipts, rows_in, write_corpus

CLASSIFY = ClassifyTask(text="{{ body }}")
Checkpoint = Callable[..., Path]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::ResourceWarning",
        "error::ray.util.annotations.RayDeprecationWarning",  # an argument that the next Ray does not have
    ),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred rows, which no test changes."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "rows.jsonl", 200)


@pytest.fixture(scope="module")
def classifier(tiny_checkpoint: Checkpoint) -> Path:
    return tiny_checkpoint("sequence-classification")


@dataclass(frozen=True, slots=True)
class Whole:
    """A run over all of `corpus`, in units of 16 rows, that nothing disturbed. Its planning took until an engine was ready: of that
    moment it is kept whether there was a plan."""

    job: Job
    out: Path
    summary: RunSummary
    seen: list[Progress]
    was_planned: list[bool]


@pytest.fixture(scope="module")
def whole(classifier: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out = tmp_path_factory.mktemp("whole") / "out"
    was_planned: list[bool] = []

    def is_any_ready() -> bool:
        return any(json.loads(path.read_bytes())["is_ready"] for path in (out / "attempts").glob("engine-*.json"))

    class Waiting(list[Progress]):
        def append(self, progress: Progress) -> None:
            if progress.phase == "planning" and progress.rows_done:
                wait_until(is_any_ready, "an engine that is ready")
                was_planned.append((out / "run.json").exists())
            super().append(progress)

    job, seen = job_of(CLASSIFY, model=classifier, corpus=corpus, out=out, unit_rows=16), Waiting()
    summary = drive(job, make_engine=fake_engine, seen=seen)
    return Whole(job=job, out=out, summary=summary, seen=seen, was_planned=was_planned)


def test_every_row_comes_out_once_and_in_order(whole: Whole) -> None:
    assert whole.summary.exit_status == 0
    assert whole.summary.progress.rows_done == whole.summary.progress.rows_total == 200
    assert [row["id"] for row in rows_in(whole.out)] == list(range(200))
    assert rows_in(whole.out, "errors") == []
    assert whole.seen[0].phase == "planning"
    assert whole.seen[-1].units_done == 13
    assert list((whole.out / "attempts").iterdir()) == []


def test_engines_load_while_the_input_is_planned(whole: Whole) -> None:
    assert whole.was_planned
    assert not any(whole.was_planned)


def test_a_run_that_is_done_starts_nothing(whole: Whole) -> None:
    before = receipts(whole.out)
    summary = drive(whole.job, make_engine=unloadable_engine)
    assert summary.exit_status == 0
    assert summary.progress.rows_resumed == 200
    assert receipts(whole.out) == before
    with pytest.raises(FingerprintError, match="seed"):
        drive(replace(whole.job, seed=1), make_engine=fake_engine)


def test_a_folder_that_another_run_holds_is_refused(classifier: Path, corpus: Path, tmp_path: Path) -> None:
    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=tmp_path / "out")
    store = open_store(job.output)
    store.prepare(())
    with Lease.take(store), pytest.raises(LeaseError, match="another run holds"):
        drive(job, make_engine=fake_engine)


def test_an_interrupted_run_goes_on_where_it_stopped(
    classifier: Path, corpus: Path, tmp_path: Path, whole: Whole
) -> None:
    """In small units, of which some are committed before others are begun."""
    parts = tmp_path / "parts"

    class Interrupting(list[Progress]):
        def append(self, progress: Progress) -> None:
            if progress.units_done >= 1:
                raise KeyboardInterrupt

    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=parts, unit_rows=4)
    summary = drive(job, make_engine=fake_engine, seen=Interrupting())
    assert summary.exit_status == 130
    before = receipts(parts)
    assert 1 <= len(before) < 50
    assert drive(job, make_engine=fake_engine).exit_status == 0
    assert {name: receipts(parts)[name] for name in before} == before
    assert lines_of(contents(parts)) == lines_of(contents(whole.out))


def lines_of(found: dict[str, bytes]) -> bytes:
    """All results of a run, whatever its units."""
    units = sorted(int(name.removeprefix("data/")) for name in found if name.startswith("data/"))
    return b"".join(found[f"data/{unit}"] for unit in units)


@pytest.fixture
def own_classifier(classifier: Path, tmp_path: Path) -> Path:
    """A checkpoint in which engines may leave their marks."""
    return shutil.copytree(classifier, tmp_path / "model")


def test_a_killed_engine_is_replaced_and_its_units_come_out_alike(
    own_classifier: Path, corpus: Path, tmp_path: Path, whole: Whole
) -> None:
    job = job_of(CLASSIFY, model=own_classifier, corpus=corpus, out=tmp_path / "out", unit_rows=16)
    assert drive(job, make_engine=engine_that_dies_once).exit_status == 0
    assert (own_classifier / "an-engine-died").exists()
    assert contents(tmp_path / "out") == contents(whole.out)


def test_an_engine_that_cannot_be_started_again_ends_the_run(
    own_classifier: Path, corpus: Path, tmp_path: Path
) -> None:
    job = job_of(CLASSIFY, model=own_classifier, corpus=corpus, out=tmp_path / "out", unit_rows=16)
    summary = drive(job, make_engine=engine_that_cannot_come_back)
    assert summary.exit_status == 1
    assert "the weights are gone" in summary.message


@pytest.mark.parametrize(
    ("make_engine", "cause"),
    [
        pytest.param(
            failing_engine,
            "3 engines died without a new committed unit; .* RuntimeError: out of memory at unit-",
            marks=pytest.mark.faults,
        ),
        (killed_engine, "3 engines died without a new committed unit; .* process [0-9]+ ended"),
        pytest.param(
            engine_that_dies_loading,
            "3 engines died without a new committed unit; .* process [0-9]+ ended",
            marks=pytest.mark.faults,
        ),
        (unloadable_engine, "an engine failed: the engine could not be started: RuntimeError: no room for the weights"),
    ],
)
def test_engines_that_keep_dying_end_the_run_with_the_cause(
    make_engine: object, cause: str, classifier: Path, corpus: Path, tmp_path: Path
) -> None:
    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=tmp_path / "out", unit_rows=16)
    summary = drive(job, make_engine=make_engine)  # type: ignore[arg-type]
    assert summary.exit_status == 1
    assert re.match(cause, summary.message), summary.message
    assert receipts(tmp_path / "out") == {}


BAD = {
    7: b'{"id": 7, "body": null}',
    17: b'{"id": 17}',
    27: b"{nonsense",
    37: b'{"id": 37, "body": "\xff\xfe"}',
    47: json.dumps({"id": 47, "body": "x " * 500}).encode(),
    57: b"[1, 2]",
    77: b'{"id": 77, "body": ""}',
}


def test_every_bad_row_is_a_dead_letter_and_the_others_go_on(classifier: Path, tmp_path: Path) -> None:
    """One of them is nested 500 deep, which no output holds, and on one the engine fails."""
    deep = b'{"id": 100, "body": "ok", "tree": ' + b"[" * 500 + b"]" * 500 + b"}"
    long = json.dumps({"id": 200, "body": "x " * 60}).encode()
    bad = {**BAD, 100: deep, 200: long}
    corpus = write_corpus(tmp_path / "rows.jsonl", 302, bad=bad)
    out = tmp_path / "out"
    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=out, unit_rows=64)
    summary = drive(job, make_engine=tripping_engine)
    assert summary.exit_status == 0
    assert summary.progress.rows_failed == len(bad)
    dead = {letter["row"]: letter for letter in rows_in(out, "errors")}
    assert list(dead) == sorted(bad)
    assert [dead[row]["kind"] for row in (100, 200)] == ["malformed_json", "internal_error"]
    assert dead[200]["input"] == json.loads(long)
    assert len({dead[row]["kind"] for row in BAD}) >= 6
    assert [row["id"] for row in rows_in(out)] == [row for row in range(302) if row not in bad]


def test_a_fault_in_unit_after_unit_ends_the_run_with_its_place(classifier: Path, corpus: Path, tmp_path: Path) -> None:
    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=tmp_path / "out", unit_rows=8)
    summary = drive(job, make_engine=helpless_engine)
    assert summary.exit_status == 1
    assert re.search(
        r"3 units in a row met the same fault of Millrace, the last in .*rows\.jsonl, row \d+", summary.message
    )
    assert "TypeError: not prepared for anything" in summary.message
    assert 3 <= len(receipts(tmp_path / "out")) < 25


def test_too_many_failures_start_no_more_units(classifier: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "rows.jsonl", 800, bad=dict.fromkeys(range(8), b"{"))
    out = tmp_path / "out"
    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=out, unit_rows=4, max_failed=MaxFailed(count=5))
    summary = drive(job, make_engine=partial(patient_engine, out))
    assert summary.exit_status == 3
    assert "max_failed was crossed" in summary.message
    assert 0 < summary.progress.units_done < 200
    assert len(receipts(out)) == summary.progress.units_done


def test_a_run_over_its_max_failed_ends_with_3_again_until_the_limit_is_raised(
    classifier: Path, tmp_path: Path
) -> None:
    """60 rows, 10 of them without a body, in units of 10: the limit is crossed on the way, and with the last of them."""
    bad = {row: b'{"id": %d, "body": null}' % row for row in range(10)}
    out = tmp_path / "out"
    corpus = write_corpus(tmp_path / "rows.jsonl", 60, bad=bad)

    def run(max_failed: MaxFailed, make_engine: MakeEngine) -> tuple[ExitStatus, int]:
        job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=out, unit_rows=10, max_failed=max_failed)
        summary = drive(job, make_engine=make_engine)
        return summary.exit_status, summary.progress.rows_failed

    assert run(MaxFailed(count=5), fake_engine) == (3, 10)
    before = receipts(out)
    assert run(MaxFailed(count=5), unloadable_engine) == (3, 10)
    assert receipts(out) == before
    assert run(MaxFailed(count=10), fake_engine) == (0, 10)
    assert len(receipts(out)) == 6
    assert run(MaxFailed(count=9), unloadable_engine) == (3, 10)


def test_a_file_rewritten_under_the_run_is_listed_and_the_others_go_on(classifier: Path, tmp_path: Path) -> None:
    first, second = (write_corpus(tmp_path / name, 40) for name in ("a.jsonl", "b.jsonl"))

    class Rewriting(list[Progress]):
        def append(self, progress: Progress) -> None:
            if progress.phase == "planning" and progress.rows_done:
                write_corpus(second, 41, seed=1)

    out = tmp_path / "out"
    job = job_of(CLASSIFY, model=classifier, corpus=first, out=out, unit_rows=8)
    job = replace(job, input=InputSpec(paths=(str(first), str(second))))
    summary = drive(job, make_engine=fake_engine, seen=Rewriting())
    assert summary.exit_status == 1
    assert "5 units could not be read" in summary.message
    assert summary.progress.units_done == summary.progress.units_failed == 5
    listed = [json.loads(line) for line in (out / "errors" / "units.jsonl").read_bytes().splitlines()]
    assert [line["unit"] for line in listed] == [5, 6, 7, 8, 9]
    assert "has changed since it was planned" in listed[0]["message"]


def test_a_touched_input_goes_on_and_what_is_passed_over_is_said(classifier: Path, tmp_path: Path) -> None:
    """Touched while it is planned, and again before the next run; its folders give a column, and its units are read in one pass, for it
    is compressed."""
    folder, out = tmp_path / "in" / "day=1", tmp_path / "out"
    folder.mkdir(parents=True)
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(write_corpus(tmp_path / "rows.jsonl", 40).read_bytes()))
    (folder / "notes.txt").touch()

    class Touching(list[Progress]):
        def append(self, progress: Progress) -> None:
            super().append(progress)
            if progress.phase == "planning" and progress.rows_done:
                os.utime(path, ns=(1, len(self)))

    job = job_of(CLASSIFY, model=classifier, corpus=tmp_path / "in", out=out, unit_rows=8)
    seen = Touching()
    assert drive(job, make_engine=fake_engine, seen=seen).exit_status == 0
    assert seen[0] == Progress(phase="planning", passed_over=PassedOver(num_files=1, examples=("day=1/notes.txt",)))
    assert [(row["id"], row["day"]) for row in rows_in(out)] == [(row, "1") for row in range(40)]
    assert len(receipts(out)) == 5
    written = json.loads((out / "run.json").read_bytes())["plan"]["passed_over"]
    assert written == {"num_files": 1, "examples": ["day=1/notes.txt"]}
    os.utime(path, ns=(2, 2))
    assert drive(job, make_engine=fake_engine).exit_status == 0


def test_a_column_with_the_name_of_a_result_is_refused_however_late_it_comes(classifier: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "rows.jsonl", 20, bad={19: b'{"id": 19, "body": "ok", "label": "mine"}'})
    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=tmp_path / "out")
    with pytest.raises(TaskError, match=r"column label has the name of a result column; set output\.prefix"):
        drive(job, make_engine=unloadable_engine)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_place_that_cannot_be_written_ends_the_run(classifier: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Blocking(list[Progress]):
        def append(self, progress: Progress) -> None:
            if progress.phase == "starting":
                (out / "receipts" / "part-00000002.json" / "in the way").mkdir(parents=True, exist_ok=True)

    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=out, unit_rows=16)
    summary = drive(job, make_engine=fake_engine, seen=Blocking())
    assert summary.exit_status == 1
    assert "part-00000002" in summary.message


def test_a_bucket_that_refuses_all_results_ends_the_run_and_is_reported(
    classifier: Path, corpus: Path, tmp_path: Path, s3_options: dict[str, Any]
) -> None:
    with FaultyStore(s3_options["client_kwargs"]["endpoint_url"]) as proxy:
        proxy.add(Fault("PUT", "/data/", refuse(403, "AccessDenied")))
        output = OutputSpec(path=f"s3://bucket/{tmp_path.name}", storage_options=proxy.options(s3_options))
        job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=tmp_path, unit_rows=16, output=output)
        summary = drive(job, make_engine=fake_engine)
        assert summary.exit_status == 1
        assert re.match(
            r"cannot write s3://bucket/.*/data/part-.*said the proxy; check the permissions", summary.message
        )
        write_report(output)
        assert json.loads(open_store(output).read("report.json") or b"")["units_done"] == 0


def test_a_run_that_loses_its_folder_ends(classifier: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Stealing(list[Progress]):
        def append(self, progress: Progress) -> None:
            lease = out / "lease.json"
            if progress.phase == "starting":
                lease.write_bytes(lease.read_bytes().replace(b'"epoch": 1', b'"epoch": 2'))

    job = job_of(CLASSIFY, model=classifier, corpus=corpus, out=out, unit_rows=16)
    summary = drive(job, make_engine=fake_engine, seen=Stealing())
    assert summary.exit_status == 1
    assert "lost" in summary.message
    assert receipts(out) == {}


def test_planning_in_tasks_keeps_the_order() -> None:
    assert list(map_in_tasks(abs, range(-20, 0))) == list(range(20, 0, -1))
    assert list(map_in_tasks(abs, [-3])) == [3]
    assert list(map_in_tasks(abs, [])) == []


def test_a_run_keeps_the_date_of_its_plan(tiny_checkpoint: Checkpoint, corpus: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_checkpoint(max_position_embeddings=512), tmp_path / "model")
    shutil.copy(Path(__file__).parents[2] / "models/chat_templates/smollm3.jinja", model / "chat_template.jinja")
    monday, tuesday = dt.date(2024, 2, 5), dt.date(2024, 2, 6)
    task, out = (
        LabelsTask(messages=({"role": "user", "content": "{{ body }}"},), labels=("yes", "no")),
        tmp_path / "out",
    )
    job = job_of(task, model=model, corpus=corpus, out=out, unit_rows=20, limit=40)
    assert drive(job, make_engine=fake_engine, today=monday).exit_status == 0
    first = contents(out)
    assert rows_in(out, "errors") == []
    assert json.loads((out / "run.json").read_bytes())["date"] == "2024-02-05"
    for receipt in sorted((out / "receipts").iterdir())[1:]:
        receipt.unlink()
    assert drive(job, make_engine=fake_engine, today=tuesday).exit_status == 0
    assert contents(out) == first
    with pytest.raises(FingerprintError, match='date: absent -> "2024-02-06"'):
        drive(replace(job, date=tuesday), make_engine=fake_engine)
