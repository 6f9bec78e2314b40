"""Units committed anew with some of their dead letters tried again: what they hold, whatever ends
the process in between."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DamageError, LeaseError
from pipelines.io.local import LocalStore
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import Job, OutputFormat
from pipelines.ledger.check import check_run
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.lease import LEASE, read_lease
from pipelines.retry.committer import RetryCommitter
from pipelines.retry.condition import Condition
from pipelines.retry.selection import Selection
from pipelines.tasks.generate import GenerateTask
from pipelines.units.listing import list_sources
from tests.helpers.pipelines.retrying import (
    NUM_ROWS,
    READABLE,
    UNIT_ROWS,
    UNREADABLE,
    Seen,
    at,
    files_of,
    job_at,
    kind_of,
    open_ledger,
    results_in,
    retry,
    run,
    seen_in,
)

BAD = frozenset({1, 2, 3, 13, 16, 25, 28, 29})
"""Rows of every unit but one; the two kinds are among them."""
GOOD = READABLE - BAD


@pytest.fixture(params=["parquet", "jsonl"])
def format(request: pytest.FixtureRequest) -> OutputFormat:
    found: OutputFormat = request.param
    return found


@pytest.fixture
def job(tmp_path: Path, format: OutputFormat) -> Job:
    return job_at(tmp_path, f"{tmp_path}/", {}, format)


@pytest.fixture
def parquet_job(tmp_path: Path) -> Job:
    return job_at(tmp_path, f"{tmp_path}/", {})


def letter(row: int, attempts: int) -> Seen:
    return Seen(kind=kind_of(row), attempts=attempts)


def result(row: int) -> Seen:
    return Seen(result=f"result {row}")


def expected(good: frozenset[int], attempts: dict[int, int]) -> dict[int, Seen]:
    return {row: result(row) if row in good else letter(row, attempts.get(row, 0)) for row in range(NUM_ROWS)}


def test_rows_that_succeed_stand_where_a_run_that_never_failed_has_them(job: Job) -> None:
    """Byte for byte in the file of results, whatever the format."""
    run(job, GOOD)
    assert seen_in(job) == expected(GOOD, {})
    tried = retry(job, READABLE)
    assert tried.rows == {0: [1, 2, 3, 4], 1: [13], 2: [16, 20], 3: [25], 4: [28, 29]}
    assert seen_in(job) == expected(READABLE, dict.fromkeys(UNREADABLE, 1))
    fresh = at(job, "fresh")
    run(fresh, READABLE)
    assert [data for data, _ in files_of(job)] == [data for data, _ in files_of(fresh)]
    assert check_run(open_store(job.output)) == []
    assert run(job, READABLE) == []


def test_what_is_not_asked_for_stays_as_it_is(job: Job) -> None:
    run(job, GOOD)
    store = open_store(job.output)
    before = {name: store.read(f"receipts/{name}") for name, _ in store.sizes("receipts")}
    lines = (store.read(json.loads(before["part-00000000.json"] or b"")["errors"]["name"]) or b"").splitlines()
    assert retry(job, READABLE, Selection(condition=Condition("row == 2"))).rows == {0: [2]}
    assert seen_in(job) == expected(GOOD | {2}, {})
    after = {name: store.read(f"receipts/{name}") for name, _ in store.sizes("receipts")}
    assert [name for name in before if before[name] != after[name]] == ["part-00000000.json"]
    kept = (store.read(json.loads(after["part-00000000.json"] or b"")["errors"]["name"]) or b"").splitlines()
    assert kept == [line for line in lines if json.loads(line)["row"] != 2]


@pytest.mark.parametrize(
    ("selection", "limit", "rows"),
    [
        (Selection(kinds=("too_long",)), None, [2, 16, 28]),
        (Selection(kinds=("null_value", "malformed_json")), None, [1, 3, 4, 13, 20, 25, 29]),
        (Selection(), 2, [1, 2]),
        (Selection(), 4, [1, 2, 3, 4]),
        (Selection(), 5, [1, 2, 3, 4, 13]),
        (Selection(), 1000, sorted(BAD | UNREADABLE)),
        (Selection(kinds=("null_value",)), 1, [1]),
        (Selection(condition=Condition('kind == "null_value" and row > 3')), 1, [13]),
        (Selection(condition=Condition('"row 16" in input.text')), None, [16]),
        (Selection(condition=Condition("unit in [1, 3] and attempts == 0")), None, [13, 25]),
        (Selection(kinds=("no such kind",)), None, []),
    ],
)
def test_only_what_is_asked_for_is_computed(
    parquet_job: Job, selection: Selection, limit: int | None, rows: list[int]
) -> None:
    run(parquet_job, GOOD)
    tried = retry(parquet_job, frozenset(), selection, limit=limit)
    assert sorted(row for of_unit in tried.rows.values() for row in of_unit) == rows
    assert seen_in(parquet_job) == expected(GOOD, dict.fromkeys(rows, 1))


def test_every_retry_is_an_attempt(parquet_job: Job) -> None:
    run(parquet_job, GOOD)
    for attempt in (1, 2, 3):
        retry(parquet_job, frozenset(), Selection(kinds=("too_long",)))
        assert seen_in(parquet_job) == expected(GOOD, dict.fromkeys((2, 16, 28), attempt))


def test_receipts_add_up_what_was_spent(parquet_job: Job) -> None:
    run(parquet_job, GOOD)
    store = open_store(parquet_job.output)

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(store.read("receipts/part-00000000.json") or b"")
        return found

    before = read()
    retry(parquet_job, {1}, Selection(condition=Condition("row in [1, 2]")))
    after = read()
    assert (before["num_written"], before["num_failed"]) == (3, 4)
    assert (after["num_written"], after["num_failed"]) == (4, 3)
    assert (before["prompt_tokens"], after["prompt_tokens"]) == (60, 80)
    assert (before["cached_tokens"], after["cached_tokens"]) == (12, 16)
    assert (before["completion_tokens"], after["completion_tokens"]) == (6, 8)
    assert after["seconds"] == 1.0
    assert "generations" not in after


def test_an_unfinished_run_is_retried_and_then_gone_on_with(job: Job) -> None:
    """The rest is as a run that nobody disturbed has it."""
    assert run(job, GOOD, stop_after=2) == [0, 1]
    assert retry(job, READABLE).rows == {0: [1, 2, 3, 4], 1: [13]}
    assert run(job, GOOD) == [2, 3, 4]
    whole = at(job, "whole")
    run(whole, GOOD)
    assert files_of(job)[2:] == files_of(whole)[2:]
    assert seen_in(job) == expected(GOOD | {1, 2, 3, 13}, {4: 1})
    assert check_run(open_store(job.output)) == []


def test_rows_of_later_generations_are_told_apart(parquet_job: Job) -> None:
    run(parquet_job, GOOD)
    retry(parquet_job, {1, 3}, Selection(condition=Condition("row < 4")), generation=1)
    retry(parquet_job, {2}, Selection(condition=Condition("row == 2")), generation=2)
    store = open_store(parquet_job.output)
    receipt = json.loads(store.read("receipts/part-00000000.json") or b"")
    assert receipt["generations"] == [{"generation": 1, "rows": [1, 3]}, {"generation": 2, "rows": [2]}]
    retry(parquet_job, set(), Selection(kinds=("malformed_json",)), generation=2)
    receipt = json.loads(store.read("receipts/part-00000000.json") or b"")
    assert receipt["generations"] == [{"generation": 1, "rows": [1, 3]}, {"generation": 2, "rows": [2, 4]}]


def test_an_output_of_a_version_before_is_retried(parquet_job: Job) -> None:
    """Its files have no epoch in their names, its receipts and record no seal, and the record no
    table of units."""
    run(parquet_job, GOOD)
    store = open_store(parquet_job.output)
    for name, _ in list(store.sizes("receipts")):
        receipt = json.loads(store.read(f"receipts/{name}") or b"")
        for folder in ("data", "errors"):
            old = receipt[folder].pop("name")
            new = f"{folder}/{old.partition('/')[2].split('-e1-')[0]}.{old.rpartition('.')[2]}"
            store.write(new, store.read(old) or b"")
            store.delete(old)
        del receipt["seal"], receipt["epoch"]
        store.write(f"receipts/{name}", json.dumps(receipt).encode())
    record = json.loads(store.read("run.json") or b"")
    del record["seal"], record["units"]
    store.write("run.json", json.dumps(record).encode())
    assert seen_in_old(store) == set(GOOD)
    retry(parquet_job, READABLE)
    fresh = at(parquet_job, "fresh")
    run(fresh, READABLE)
    assert [data for data, _ in files_of(parquet_job)] == [data for data, _ in files_of(fresh)]
    with open_ledger(parquet_job) as ledger:
        other = replace(parquet_job, task=GenerateTask(prompt="{{ text | default('') }}"))
        assert ledger.generation(other, fingerprint_of(other, list_sources(other.input)), None) == 1
        assert ledger.generation(other, fingerprint_of(other, list_sources(other.input)), None) == 1
    with open_ledger(parquet_job) as ledger:
        assert ledger.record is not None
        assert [each.spec["task"]["prompt"] for each in ledger.record.generations] == ["{{ text | default('') }}"]
    assert check_run(store) == []


def seen_in_old(store: Store) -> set[int]:
    """The rows with results, by all files of the folder."""
    contents = [store.read(f"data/{name}") or b"" for name, _ in store.sizes("data")]
    return {row["id"] for content in contents for row in results_in(content, "parquet")}


@pytest.mark.service
def test_units_in_a_bucket_are_committed_anew(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    job = job_at(tmp_path, f"s3://bucket/retry/{tmp_path.name}/", s3_options)
    run(job, GOOD)
    retry(job, READABLE, Selection(kinds=("null_value",)))
    assert seen_in(job) == expected(GOOD | {1, 3, 13, 25, 29}, {})
    assert check_run(open_store(job.output)) == []
    assert len(files_of(job)) == 5


# Whatever ends the process.


class CrashError(Exception):
    """Stands for the end of the process."""


class CrashingStore(LocalStore):
    """A folder whose process ends at a given step of writing, before it or right after."""

    steps_left: int = 1 << 30

    def _step(self) -> None:
        type(self).steps_left -= 1
        if type(self).steps_left < 0:
            raise CrashError

    def _sync(self, path: Path) -> None:
        self._step()
        super()._sync(path)

    def _rename(self, path: Path, target: Path) -> None:
        self._step()
        super()._rename(path, target)
        self._step()

    def delete(self, name: str) -> None:
        self._step()
        super().delete(name)


@pytest.fixture(autouse=True)
def _no_crash() -> Iterator[None]:
    yield
    CrashingStore.steps_left = 1 << 30


def crash_after(job: Job, steps: int, good: frozenset[int], selection: Selection | None = None) -> bool:
    """A retry whose process ends after so many steps of committing; whether it came to its end
    before."""
    CrashingStore.steps_left = steps
    try:
        retry(job, good, selection, store=lambda store: CrashingStore.at(store.location))
    except CrashError:
        return False
    return True


STEPS_OF_A_UNIT = 14


@pytest.mark.parametrize("crash_at", range(STEPS_OF_A_UNIT + 3))
def test_a_crash_at_any_step_leaves_each_unit_as_it_was_or_as_it_is_to_be(parquet_job: Job, crash_at: int) -> None:
    job = parquet_job
    run(job, GOOD)
    before = seen_in(job)
    assert not crash_after(job, crash_at, READABLE)
    after = expected(READABLE, dict.fromkeys(UNREADABLE, 1))
    seen = seen_in(job)
    for unit in range(5):
        rows = range(unit * UNIT_ROWS, min((unit + 1) * UNIT_ROWS, NUM_ROWS))
        of_unit = {row: seen[row] for row in rows}
        assert of_unit in ({row: before[row] for row in rows}, {row: after[row] for row in rows})
    assert run(job, GOOD) == []  # sweeps what was left
    assert seen_in(job) == seen
    assert check_run(open_store(job.output)) == []
    retry(job, READABLE, Selection(condition=Condition("attempts == 0")))
    assert seen_in(job) == after
    fresh = at(job, "fresh")
    run(fresh, READABLE)
    assert [data for data, _ in files_of(job)] == [data for data, _ in files_of(fresh)]


def test_the_steps_of_a_unit_are_all_crashed_at(parquet_job: Job) -> None:
    run(parquet_job, GOOD)
    for row, steps, is_done in ((13, STEPS_OF_A_UNIT - 1, False), (25, STEPS_OF_A_UNIT, True)):
        one_row = Selection(condition=Condition(f"row == {row}"))
        assert crash_after(parquet_job, steps, READABLE, one_row) == is_done


def test_readers_of_the_folder_see_a_unit_twice_only_while_its_receipt_is_written(
    parquet_job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `data/*` holds between any two writes: never fewer rows than before."""
    run(parquet_job, GOOD)
    doubled: list[str] = []
    store = open_store(parquet_job.output)

    def look(name: str) -> None:
        units = [file.split("-")[1] for file, _ in store.sizes("data")]
        assert {*units} == {f"{unit:08d}" for unit in range(5)}
        if len(units) > 5:
            doubled.append(name.partition("/")[0])

    for method in ("write", "replace", "delete"):
        monkeypatch.setattr(LocalStore, method, looked(getattr(LocalStore, method), look))
    retry(parquet_job, READABLE, Selection(condition=Condition("row == 13")))
    assert doubled == ["data", "receipts"]  # behind the one, and behind the other; the removal ends it


def looked(method: Callable[..., Any], look: Callable[[str], None]) -> Callable[..., Any]:
    def with_look(self: LocalStore, name: str, *rest: Any) -> Any:
        done = method(self, name, *rest)
        if name != LEASE:
            look(name)
        return done

    return with_look


def test_a_retry_that_has_lost_its_lease_changes_nothing(parquet_job: Job) -> None:
    run(parquet_job, GOOD)
    before = seen_in(parquet_job)
    store = open_store(parquet_job.output)

    def lose() -> None:
        state = read_lease(store)
        assert state is not None
        store.write(LEASE, replace(state, owner="them", epoch=state.epoch + 5).to_json())

    with pytest.raises(LeaseError):
        retry(parquet_job, READABLE, before_commit=lose)
    assert seen_in(parquet_job) == before


def test_a_receipt_that_is_another_by_the_time_it_is_replaced_stays(
    parquet_job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write of this retry that lands once another has committed the unit: its version is no
    longer there."""
    run(parquet_job, GOOD)
    late: list[Callable[[], Any]] = []
    replace_file = LocalStore.replace

    def delayed(self: LocalStore, name: str, version: str, content: bytes) -> str | None:
        if name.startswith("receipts/") and not late:
            late.append(lambda: replace_file(self, name, version, content))
            raise CrashError
        return replace_file(self, name, version, content)

    monkeypatch.setattr(LocalStore, "replace", delayed)
    with pytest.raises(CrashError):
        retry(parquet_job, READABLE)
    retry(parquet_job, {1})
    after = seen_in(parquet_job)
    assert late[0]() is None
    assert seen_in(parquet_job) == after
    assert check_run(open_store(parquet_job.output)) == []


def test_a_second_attempt_at_a_unit_commits_nothing_and_reads_nothing(
    parquet_job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Ray runs a task again whose answer was lost: attempts are counted once."""
    run(parquet_job, GOOD)
    commit = RetryCommitter.commit
    monkeypatch.setattr(RetryCommitter, "commit", lambda self, unit: (commit(self, unit), commit(self, unit))[1])
    retry(parquet_job, frozenset())
    assert {seen.attempts for row, seen in seen_in(parquet_job).items() if row not in GOOD} == {1}


@pytest.mark.parametrize("folder", ["data", "errors"])
def test_a_damaged_unit_is_not_merged(parquet_job: Job, folder: str) -> None:
    run(parquet_job, GOOD)
    store = open_store(parquet_job.output)
    receipt = json.loads(store.read("receipts/part-00000000.json") or b"")
    content = store.read(receipt[folder]["name"]) or b""
    store.write(receipt[folder]["name"], content[:-3] + b"abc")
    with pytest.raises(DamageError, match="is not what was committed"):
        retry(parquet_job, READABLE)


def test_a_retry_beside_a_run_is_refused(parquet_job: Job) -> None:
    run(parquet_job, GOOD, stop_after=2)
    with open_ledger(parquet_job), pytest.raises(LeaseError, match="another run holds"):
        retry(parquet_job, READABLE)


def one_of_many(job: Job, seed: int) -> None:
    """A sequence of retries and runs, of letters and with rows drawn by chance, most of them
    killed: ends as one that was not."""
    draw = random.Random(seed)
    run(job, GOOD, stop_after=draw.randrange(1, 6))
    for _ in range(6):
        good = frozenset(draw.sample(sorted(READABLE), draw.randrange(len(READABLE))))
        selection = Selection(
            kinds=draw.choice([(), ("too_long",), ("null_value", "malformed_json")]),
            condition=draw.choice([None, Condition(f"row % 3 == {draw.randrange(3)}"), Condition("attempts == 0")]),
        )
        before = seen_in(job)
        crash_after(job, draw.randrange(5 * STEPS_OF_A_UNIT), good, selection)
        after = seen_in(job)
        assert after.keys() == before.keys()
        for row, seen in after.items():
            allowed = [before[row]]
            attempts = before[row].attempts
            if attempts is not None:
                allowed += [result(row) if row in good else letter(row, attempts + 1)]
            assert seen in allowed
        if draw.random() < 0.3:
            run(job, GOOD, stop_after=draw.randrange(3))
    run(job, GOOD)
    retry(job, READABLE)
    fresh = at(job, "fresh")
    run(fresh, READABLE)
    assert [data for data, _ in files_of(job)] == [data for data, _ in files_of(fresh)]
    assert {row for row, seen in seen_in(job).items() if seen.kind is not None} == UNREADABLE
    assert check_run(open_store(job.output)) == []


@pytest.mark.parametrize("seed", range(3))
def test_retries_that_are_killed_end_as_those_that_are_not(parquet_job: Job, seed: int) -> None:
    one_of_many(parquet_job, seed)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3, 203))
def test_retries_that_are_killed_end_as_those_that_are_not_whatever_is_drawn(job: Job, seed: int) -> None:
    one_of_many(job, seed)
