"""Runs that settle how many rows their units have, by what their engine answers to a few of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from pipelines.errors import FingerprintError
from pipelines.job import Job
from pipelines.tasks.classify import ClassifyTask
from pipelines.units import unit_rows
from tests.helpers.pipelines.fake_engines import failing_engine, fake_engine, slow_engine
from tests.helpers.pipelines.running import contents, drive, job_of, receipts, rows_in, write_corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

NUM_ROWS = 200


@pytest.fixture
def job(tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of which nothing is little work."""
    monkeypatch.setattr(unit_rows, "ANY_FLOPS", 1.0)
    model, corpus = tiny_checkpoint("sequence-classification"), write_corpus(tmp_path / "t.jsonl", NUM_ROWS)
    return job_of(ClassifyTask(text="{{ body }}"), model=model, corpus=corpus, out=tmp_path / "out", unit_rows=None)


def settled(out: Path) -> int:
    found: int = orjson.loads((out / "run.json").read_bytes())["fingerprint"]["unit_rows"]
    return found


def test_a_slow_engine_gets_small_units_and_a_run_that_goes_on_keeps_them(job: Job, tmp_path: Path) -> None:
    """20 rows a second at most: 2 seconds of them, since an eighth of the rows would be less."""
    out = tmp_path / "out"
    assert drive(job, make_engine=slow_engine).exit_status == 0
    rows = settled(out)
    assert 8 <= rows <= 41
    assert len(receipts(out)) == -(-NUM_ROWS // rows)
    assert [row["id"] for row in rows_in(out)] == list(range(NUM_ROWS))

    before = contents(out)
    (out / "receipts" / sorted(receipts(out))[1]).unlink()
    assert drive(job, make_engine=fake_engine).exit_status == 0  # as fast as it may be by now
    assert settled(out) == rows
    assert contents(out).keys() == before.keys()
    with pytest.raises(FingerprintError, match=rf"unit_rows: {rows} -> 99"):
        drive(replace(job, unit_rows=99), make_engine=fake_engine)


def test_an_engine_that_fails_on_the_first_rows_ends_the_run_as_it_would(job: Job, tmp_path: Path) -> None:
    summary = drive(job, make_engine=failing_engine)
    assert summary.exit_status == 1
    assert "out of memory" in summary.message
    assert settled(tmp_path / "out") == 4096
