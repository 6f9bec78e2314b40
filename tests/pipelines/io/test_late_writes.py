"""Writes that land late, from a run that has lost its lease in the meantime: what is committed stays what it is, in a folder and in S3."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import LeaseError, OutputError
from pipelines.formats.schema import Columns
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import Job
from pipelines.ledger.lease import LeaseToken
from pipelines.ledger.part_names import PartName
from pipelines.ledger.receipts import receipt_name
from pipelines.ledger.repair import repair_run
from pipelines.ledger.run_record import RUN, read_record
from pipelines.rows.rows import FinishedUnit
from pipelines.units.listing import list_sources
from pipelines.units.numbering import Sink
from pipelines.units.planning import plan_units
from tests.pipelines.ledger.test_ledger import (
    contents,
    finished,
    job,  # noqa: F401 - a fixture
    local_job,  # noqa: F401 - a fixture
    messages,
    open_ledger,
    plan,
    receipt_of,
    results,
    run,
    unsealed,
)


def otherwise(work: FinishedUnit) -> FinishedUnit:
    """The same unit computed to other labels, as after a near-tie."""
    return dataclasses.replace(work, results=pa.table({"label": ["y"] * work.results.num_rows}))


class StandingStill:
    """Has a process stand still before its n-th write of a file, while `meanwhile` happens."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, store: Store, before: int, meanwhile: Callable[[], object]
    ) -> None:
        self._left, self._meanwhile = before, meanwhile
        for method in ("write", "create", "replace"):
            monkeypatch.setattr(type(store), method, self._wrapped(getattr(type(store), method)))

    def _wrapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def late(store: Store, name: str, *arguments: Any) -> Any:
            if not name.endswith("lease.json"):
                self._left -= 1
                if self._left == 0:
                    self._meanwhile()
            return method(store, name, *arguments)

        return late


LEFT_BEHIND = {1: ["data/part-00000002", "errors/part-00000002"], 2: ["errors/part-00000002"], 3: []}


@pytest.mark.parametrize("write", LEFT_BEHIND, ids=["data", "errors", "receipt"])
def test_a_unit_that_a_later_run_has_committed_stays_as_it_is(
    job: Job,  # noqa: F811
    write: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(job, stop_after=2)
    ledger = open_ledger(job)
    unit = next(ledger.pending_units(ledger.survey()))
    late, work = ledger.committer(), otherwise(finished(job, ledger, unit))
    after: list[dict[str, bytes]] = []

    def another_run() -> None:
        ledger.close()
        run(job)
        after.append(contents(ledger.store))

    with monkeypatch.context() as patch:
        StandingStill(patch, ledger.store, write, another_run)
        with pytest.raises(LeaseError, match="has lost"):
            late.commit(work)
    now = contents(ledger.store)
    assert {name: now[name] for name in after[0]} == after[0]
    added = sorted(set(now) - set(after[0]))
    assert [name.partition("-e2-")[0] for name in added] == LEFT_BEHIND[write]
    assert [message.partition(" is named")[0] for message in messages(ledger.store)] == added
    assert repair_run(ledger.store).removed == tuple(added)
    assert contents(ledger.store) == after[0]


def test_the_next_run_removes_what_an_earlier_one_left(job: Job) -> None:  # noqa: F811
    run(job)
    store = open_store(job.output)
    before = results(store)
    store.write("data/part-00000003-e1-00000000.parquet", b"late")
    store.write("errors/part-00000000.jsonl", b"from a version before")
    assert len(messages(store)) == 2
    assert run(job) == []
    assert results(store) == before
    assert messages(store) == []


def test_what_a_later_run_writes_is_not_removed_by_one_that_has_not_noticed(
    job: Job,  # noqa: F811
) -> None:
    run(job)
    with open_ledger(job) as ledger:
        survey = ledger.survey()
        of_later = f"data/part-00000003-e{ledger.lease.token.epoch + 1}-00000000.parquet"
        ledger.store.write(of_later, b"about to be committed")
        ledger.sweep(survey)
        assert ledger.store.read(of_later) is not None


def test_of_two_attempts_in_one_run_the_first_receipt_stays(job: Job) -> None:  # noqa: F811
    with open_ledger(job) as ledger:
        plan(job, ledger)
        survey = ledger.survey()
        units = list(ledger.pending_units(survey))
        first = ledger.committer().commit(finished(job, ledger, units[0]))
        after = contents(ledger.store)
        second = ledger.committer().commit(otherwise(finished(job, ledger, units[0])))
        assert second == first == receipt_of(ledger.store, 0)
        assert after.items() <= contents(ledger.store).items()
        survey.files.add(second)
        ledger.sweep(survey)
        assert contents(ledger.store) == after


def test_a_late_receipt_of_an_earlier_run_gives_way(job: Job) -> None:  # noqa: F811
    """It lands after the next run has looked, and before that run commits the unit itself."""
    run(job, stop_after=2)
    early = open_ledger(job)
    unit = next(early.pending_units(early.survey()))
    early.committer().commit(otherwise(finished(job, early, unit)))
    receipt = early.store.read(receipt_name(unit.index)) or b""
    early.store.delete(receipt_name(unit.index))
    early.close()
    with open_ledger(job) as ledger:
        survey = ledger.survey()
        ledger.store.write(receipt_name(unit.index), receipt)
        committed = ledger.committer().commit(finished(job, ledger, unit))
        survey.files.add(committed)
        ledger.sweep(survey)
        assert receipt_of(ledger.store, unit.index) == committed
        assert committed.epoch == ledger.lease.token.epoch
    assert len(run(job)) == 4
    assert messages(open_store(job.output)) == []


WOKEN = r"has lost|was written by another process meanwhile|No such file"
"""In a folder the other run has swept the unfinished table away."""


@pytest.mark.parametrize("is_same", [True, False])
def test_a_late_plan_changes_nothing(
    job: Job,  # noqa: F811
    is_same: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has planned before it stood still, perhaps with other units, and wakes up once another run has planned and computed."""
    early = open_ledger(job)

    def make(sink: Sink) -> Any:
        return plan_units(list_sources(job.input), job.input, Columns(), unit_rows=8 if is_same else 5, sink=sink)

    def stand_still(store: Store, token: LeaseToken) -> None:
        monkeypatch.undo()
        early.close()
        run(job)

    monkeypatch.setattr("pipelines.ledger.ledger.ensure_owned", stand_still)
    with pytest.raises((LeaseError, OutputError), match=WOKEN):
        early.write_plan(make)
    assert messages(open_store(job.output)) == []
    assert len(results(open_store(job.output))) == 7


def as_versions_before(store: Store) -> None:
    """Makes the output one of a version that named files by unit alone and knew no seals."""
    names = [name for name, _ in store.sizes("receipts")]
    for name in names:
        receipt = json.loads(store.read(f"receipts/{name}") or b"")
        for folder in ("data", "errors"):
            old = receipt[folder].pop("name")
            ending = old.rpartition(".")[2]
            store.write(f"{folder}/{name.removesuffix('.json')}.{ending}", store.read(old) or b"")
            store.delete(old)
        del receipt["epoch"], receipt["seal"]
        store.write(f"receipts/{name}", json.dumps(receipt).encode())
    record = json.loads(unsealed(store.read(RUN) or b""))
    del record["units"]
    store.write(RUN, json.dumps(record).encode())


def test_a_folder_of_a_version_before_is_checked_and_gone_on_with(job: Job) -> None:  # noqa: F811
    run(job, stop_after=4)
    store = open_store(job.output)
    as_versions_before(store)
    assert [name for name, _ in sorted(store.sizes("data"))] == [f"part-{unit:08d}.parquet" for unit in range(4)]
    assert messages(store) == [f"unit {unit}: not committed: it has no receipt" for unit in range(4, 7)]
    assert run(job) == [4, 5, 6]
    assert messages(store) == []
    record = read_record(store)
    assert record is not None
    assert record.units is None
    assert [receipt_of(store, unit).epoch for unit in range(7)] == [0, 0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("part-00000000.parquet", True),
        ("part-00000012-e3-0123abcd.jsonl", True),
        ("part-123456789-e3-0123abcd.jsonl", True),
        ("part-000000012-e3-0123abcd.jsonl", False),
        ("part-00000012-e0-0123abcd.jsonl", False),
        ("part-00000012-e03-0123abcd.jsonl", False),
        ("part-00000012-e3-0123ABCD.jsonl", False),
        ("part-00000012-e3.jsonl", False),
        ("part-00000012-e3-0123abcd.jsonl.bak", False),
        ("part-٠٠٠٠٠٠٠٠.parquet", False),
        ("notes.txt", False),
    ],
)
def test_a_name_is_read_back_or_is_none_of_ours(name: str, is_ours: bool) -> None:
    part = PartName.of(name)
    assert (part is not None) == is_ours
    if part is not None:
        assert str(part) == name
        assert PartName.of_key(part.unit, part.key, part.ending) == part
