"""What reads an output while its units are committed anew: whole units, as they were or as they
are to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.report.source import RunOutput
from pipelines.errors import DamageError
from pipelines.io.local import LocalStore
from pipelines.io.open_output import open_store
from pipelines.job import Job
from pipelines.ledger.check import check_run
from pipelines.ledger.receipts import GenerationRows, Receipt, read_receipt
from tests.helpers.pipelines.retrying import READABLE, job_at, retry, run

GOOD = READABLE - {1, 2, 13}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    found = job_at(tmp_path, f"{tmp_path}/", {})
    run(found, GOOD)
    return found


def once(before: Callable[[], object]) -> Callable[[], None]:
    """What is called the first time alone."""
    left = [before]

    def call() -> None:
        if left:
            left.pop()()

    return call


def test_a_check_beside_a_retry_finds_nothing_wrong(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a receipt and its files all units are committed anew, also those that are checked
    already."""
    read, intervene = LocalStore.read, once(lambda: retry(job, READABLE))

    def read_then(self: LocalStore, name: str) -> bytes | None:
        found = read(self, name)
        if name == "receipts/part-00000000.json":
            intervene()
        return found

    monkeypatch.setattr(LocalStore, "read", read_then)
    assert check_run(open_store(job.output)) == []


def test_a_report_beside_a_retry_reads_units_as_they_are_to_be(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    output = RunOutput.open(job.output, input_options={})
    read: Callable[..., Receipt] = read_receipt
    intervene = once(lambda: retry(job, READABLE))

    def read_then(*arguments: Any) -> Receipt:
        found = read(*arguments)
        intervene()
        return found

    monkeypatch.setattr("jobs.report.source.read_receipt", read_then)
    assert [row["label"] for row in output.results(0)] == [f"result {row}" for row in (0, 1, 2, 3, 5, 6)]
    assert [letter["attempts"] for letter in output.dead_letters(0)] == [1]


def test_what_is_gone_without_a_new_receipt_is_still_damage(job: Job) -> None:
    output = RunOutput.open(job.output, input_options={})
    for path in Path(job.output.path, "data").iterdir():
        path.unlink()
    with pytest.raises(DamageError, match="cannot read"):
        output.results(0)
    assert len(check_run(open_store(job.output))) == 5


@pytest.mark.parametrize(
    ("rows", "flaw"),
    [
        (GenerationRows(generation=1, rows=(1,)), "it names generation 1, and run.json has 0 later ones"),
        (GenerationRows(generation=1, rows=(1, 7)), "rows of another unit are of generation 1"),
    ],
)
def test_a_receipt_of_a_spec_that_nobody_knows_is_a_flaw(
    job: Job, rows: GenerationRows, flaw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.retry.committer.generations_with", lambda *_: (rows,))
    retry(job, READABLE, limit=1)
    (found,) = check_run(open_store(job.output))
    assert found.unit == 0
    assert flaw in str(found)
