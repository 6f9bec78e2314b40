"""The ledger end to end: planning, committing, crashing at any step, going on, checking."""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DamageError, FingerprintError, LeaseError, PlanError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.io.local import LocalStore
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import EngineSpec, Escalation, InputSpec, Job, ModelSpec, OutputSpec
from pipelines.ledger.check import check_run
from pipelines.ledger.commit import Committer
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.lease import LEASE, LeaseState, read_lease
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.permit import Permit, PermitOfBegun
from pipelines.ledger.planned_units import UNITS, rows_of_units
from pipelines.ledger.receipts import Receipt, Totals, iter_receipts, receipt_name, totals_with
from pipelines.ledger.repair import Repaired, repair_run
from pipelines.ledger.run_record import RUN, read_record
from pipelines.ledger.unreadable import UNREADABLE
from pipelines.rows.rows import FinishedUnit, UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.tasks.generate import GenerateTask
from pipelines.units.listing import list_sources
from pipelines.units.numbering import Sink
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader
from pipelines.units.unit_table import iter_units
from tests.helpers.matrix import first_of_each

INPUT = b"".join(b'{"id": %d, "text": "row %d"}\n' % (n, n) if n % 10 else b"bad line %d\n" % n for n in range(50))


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.service)])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    options: dict[str, Any] = {}
    where = f"{tmp_path}/"
    if request.param == "s3":
        options = request.getfixturevalue("s3_options")
        where = f"s3://bucket/ledger/{tmp_path.name}/"
    return make_job(tmp_path, where, options)


@pytest.fixture
def local_job(tmp_path: Path) -> Job:
    return make_job(tmp_path, f"{tmp_path}/", {})


def make_job(tmp_path: Path, where: str, options: dict[str, Any]) -> Job:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    job = Job(
        name="job",
        model=ModelSpec(path=str(tmp_path / "model")),
        task=GenerateTask(prompt="{{ text }}"),
        input=InputSpec(paths=(f"{where}in.jsonl",), storage_options=options),
        output=OutputSpec(path=f"{where}out", storage_options=options),
        unit_rows=8,
    )
    if options:
        file_system, key = Storage(options).resolve(f"{where}in.jsonl")
        file_system.pipe_file(key, INPUT)
    else:
        (tmp_path / "in.jsonl").write_bytes(INPUT)
    return job


def plan(job: Job, ledger: Ledger) -> None:
    def make(sink: Sink) -> Any:
        return plan_units(list_sources(job.input), job.input, Columns(), unit_rows=8, sink=sink)

    ledger.write_plan(make)


def open_ledger(job: Job) -> Ledger:
    return Ledger.open(job, fingerprint_of(job, list_sources(job.input)), heartbeat_s=0.5)


def finished(job: Job, ledger: Ledger, unit: Unit) -> FinishedUnit:
    assert ledger.record is not None
    rows = UnitReader(schema=ledger.record.schema, storage=Storage(job.input.storage_options)).read_unit(unit)
    return FinishedUnit(
        unit=unit,
        carried=rows.rows,
        results=pa.table({"label": ["x"] * rows.rows.num_rows}),
        failures=rows.failures,
        prompt_tokens=10,
        cached_tokens=4,
        completion_tokens=3,
        seconds=0.5,
    )


def run(job: Job, *, stop_after: int | None = None) -> list[int]:
    """A whole run without engine; returns the units it committed."""
    with open_ledger(job) as ledger:
        if ledger.record is None:
            plan(job, ledger)
        committer: Committer = pickle.loads(pickle.dumps(ledger.committer()))
        done: list[int] = []
        survey = ledger.survey()
        for unit in ledger.pending_units(survey):
            if len(done) == stop_after:
                break
            survey.files.add(committer.commit(finished(job, ledger, unit)))
            done.append(unit.index)
        ledger.sweep(survey)
        ledger.write_unreadable([])
        return done


def contents(store: Store) -> dict[str, bytes]:
    """Every file of the three folders by its name."""
    return {
        f"{folder}/{name}": store.read(f"{folder}/{name}") or b""
        for folder in ("data", "errors", "receipts")
        for name, _ in store.sizes(folder)
    }


def receipt_of(store: Store, unit: int) -> Receipt:
    return Receipt.from_json(store.read(receipt_name(unit)) or b"", "parquet")


def results(store: Store) -> list[tuple[bytes | None, bytes | None]]:
    """What the receipts name, by unit: the same for equal runs, whatever the epochs. There must be nothing else in the two folders."""
    receipts = [receipt_of(store, unit) for unit in range(sum(1 for _ in store.sizes("receipts")))]
    shards = {shard.name for receipt in receipts for shard in (receipt.data, receipt.errors)}
    assert shards == {f"{folder}/{name}" for folder in ("data", "errors") for name, _ in store.sizes(folder)}
    return [(store.read(receipt.data.name), store.read(receipt.errors.name)) for receipt in receipts]


def messages(store: Store) -> list[str]:
    return [str(flaw) for flaw in check_run(store)]


def test_a_run_leaves_the_layout_of_the_design_and_checks_out(job: Job) -> None:
    assert run(job) == list(range(7))
    store = open_store(job.output)
    assert messages(store) == []
    expected = []
    for unit in range(7):
        receipt = json.loads(store.read(f"receipts/part-{unit:08d}.json") or b"")
        data, errors = receipt["data"], receipt["errors"]
        assert data["name"] == f"data/part-{unit:08d}-e1-{data['sha256'][:8]}.parquet"
        assert errors["name"] == f"errors/part-{unit:08d}-e1-{errors['sha256'][:8]}.jsonl"
        for shard in (data, errors):
            assert hashlib.sha256(store.read(shard["name"]) or b"").hexdigest() == shard["sha256"]
        expected += [f"receipts/part-{unit:08d}.json", data["name"], errors["name"]]
    assert sorted(contents(store)) == sorted(expected)
    assert list(store.sizes("tmp")) == []
    second = receipt_of(store, 1)
    with store.open(second.data.name) as file:
        assert pq.read_table(file)["id"].to_pylist() == [8, 9, 11, 12, 13, 14, 15]
    (letter,) = map(json.loads, (store.read(second.errors.name) or b"").splitlines())
    assert (letter["unit"], letter["row"], letter["kind"]) == (1, 10, "malformed_json")
    assert letter["path"] == job.input.paths[0]


def test_receipts_add_up(job: Job) -> None:
    run(job)
    store = open_store(job.output)
    record = read_record(store)
    assert record is not None
    totals = reduce(totals_with, iter_receipts(store, "parquet", rows_of_units(store, record)), Totals())
    assert totals == Totals(
        num_units=7,
        num_rows=50,
        num_written=45,
        num_failed=5,
        prompt_tokens=70,
        cached_tokens=28,
        completion_tokens=21,
        seconds=3.5,
        data_bytes=sum(size for _, size in store.sizes("data")),
    )


def test_a_run_goes_on_where_it_was_stopped_with_the_same_bytes(job: Job) -> None:
    whole = dataclasses.replace(job, output=dataclasses.replace(job.output, path=job.output.path + "-whole"))
    run(whole)
    assert run(job, stop_after=3) == [0, 1, 2]
    assert messages(open_store(job.output)) == [f"unit {n}: not committed: it has no receipt" for n in range(3, 7)]
    assert run(job) == [3, 4, 5, 6]
    assert run(job) == []
    assert results(open_store(job.output)) == results(open_store(whole.output))


def test_json_lines_can_be_written(local_job: Job) -> None:
    job = dataclasses.replace(local_job, output=dataclasses.replace(local_job.output, format="jsonl"))
    run(job)
    store = open_store(job.output)
    assert messages(store) == []
    (first, *_) = sorted(name for name, _ in store.sizes("data"))
    assert (store.read(f"data/{first}") or b"").startswith(b'{"id":1,"text":"row 1","label":"x"}\n')


def test_a_dead_letter_with_a_number_of_many_digits_checks_out(local_job: Job) -> None:
    digits = "7" * 4000
    with open_ledger(local_job) as ledger:
        plan(local_job, ledger)
        work = finished(local_job, ledger, next(ledger.pending_units(ledger.survey())))
        (failure,) = work.failures
        letter = dataclasses.replace(failure, input={"id": int(digits)})
        receipt = ledger.committer().commit(dataclasses.replace(work, failures=(letter,)))
    store = open_store(local_job.output)
    assert digits.encode() in (store.read(receipt.errors.name) or b"")
    assert not [message for message in messages(store) if message.startswith("unit 0")]


class CrashError(Exception):
    """Stands for the end of the process."""


class CrashingStore(LocalStore):
    """A folder whose process ends at a given step of writing."""

    steps_left: int = 1 << 30

    def step(self) -> None:
        type(self).steps_left -= 1
        if type(self).steps_left < 0:
            raise CrashError

    def _sync(self, path: Path) -> None:
        self.step()
        super()._sync(path)

    def _rename(self, path: Path, target: Path) -> None:
        self.step()
        super()._rename(path, target)
        self.step()


@pytest.mark.parametrize("crash_at", first_of_each(range(12), kind=lambda crash_at: crash_at >= 10))
def test_a_crash_at_any_step_of_a_commit_loses_and_doubles_nothing(
    local_job: Job, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(local_job, output=OutputSpec(path=local_job.output.path + "-whole"))
    run(whole)
    run(local_job, stop_after=1)
    with open_ledger(local_job) as ledger:
        unit = next(ledger.pending_units(ledger.survey()))
        committer = ledger.committer()
        crashing = dataclasses.replace(committer, store=CrashingStore.at(ledger.store.location))
        monkeypatch.setattr(CrashingStore, "steps_left", crash_at)
        with pytest.raises(CrashError):
            crashing.commit(finished(local_job, ledger, unit))
        is_committed = ledger.survey().is_committed[unit.index]
        assert is_committed == (crash_at >= 10)  # the tenth step is the receipt's renaming
    run(local_job)
    assert results(open_store(local_job.output)) == results(open_store(whole.output))
    assert messages(open_store(local_job.output)) == []


@pytest.mark.parametrize("crash_at", range(8))
def test_a_crash_at_any_step_of_planning_leaves_a_plan_or_none(
    local_job: Job, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(local_job)
    ledger.store = CrashingStore.at(ledger.store.location)
    monkeypatch.setattr(CrashingStore, "steps_left", crash_at)
    with pytest.raises(CrashError):
        plan(local_job, ledger)
    ledger.close()
    record = read_record(open_store(local_job.output))
    assert (record is not None) == (crash_at >= 6)
    assert len(run(local_job)) == 7
    assert messages(open_store(local_job.output)) == []


def test_a_plan_that_fails_leaves_no_plan(local_job: Job) -> None:
    def make(sink: Sink) -> Any:
        raise PlanError("no")

    with open_ledger(local_job) as ledger, pytest.raises(PlanError):
        ledger.write_plan(make)
    store = open_store(local_job.output)
    assert (store.read(UNITS), store.read(RUN), list(store.sizes("tmp"))) == (None, None, [])


def test_another_job_may_not_use_the_folder_and_is_told_why(job: Job) -> None:
    run(job)
    other = dataclasses.replace(job, seed=5, task=GenerateTask(prompt="{{ id }}"))
    with pytest.raises(FingerprintError, match="holds a run of something else") as caught:
        open_ledger(other)
    assert 'task.prompt: "{{ text }}" -> "{{ id }}"' in str(caught.value)
    assert "seed: 0 -> 5" in str(caught.value)
    with open_ledger(job):
        pass


def test_receipts_without_a_run_are_not_touched(local_job: Job) -> None:
    run(local_job)
    open_store(local_job.output).delete(RUN)
    with pytest.raises(FingerprintError, match=r"holds receipts but no run\.json"):
        open_ledger(local_job)


def test_a_second_run_is_refused_while_the_first_lives(job: Job) -> None:
    with open_ledger(job), pytest.raises(LeaseError, match="another run holds"):
        open_ledger(job)


def test_a_worker_that_outlives_its_run_commits_nothing(job: Job) -> None:
    run(job, stop_after=1)
    ledger = open_ledger(job)
    unit = next(ledger.pending_units(ledger.survey()))
    late, work = ledger.committer(), finished(job, ledger, unit)
    ledger.close()
    before = contents(ledger.store)
    with open_ledger(job), pytest.raises(LeaseError, match="has lost"):
        late.commit(work)
    with pytest.raises(LeaseError):
        late.is_draining()
    assert contents(ledger.store) == before


def test_a_run_that_loses_its_lease_between_data_and_receipt_does_not_commit(
    local_job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(local_job) as ledger:
        plan(local_job, ledger)
        unit = next(ledger.pending_units(ledger.survey()))
        work = finished(local_job, ledger, unit)
        write = LocalStore.write

        def lose_after_errors(self: LocalStore, name: str, content: bytes) -> None:
            write(self, name, content)
            if name.startswith("errors/"):
                state = read_lease(self)
                assert state is not None
                write(self, LEASE, dataclasses.replace(state, owner="them", epoch=9).to_json())

        monkeypatch.setattr(LocalStore, "write", lose_after_errors)
        with pytest.raises(LeaseError):
            ledger.committer().commit(work)
    assert list(ledger.store.sizes("receipts")) == []


def test_draining_reaches_workers(job: Job) -> None:
    with open_ledger(job) as ledger:
        assert not ledger.committer().is_draining()
        ledger.lease.set_draining()
        assert ledger.committer().is_draining()


def test_what_is_begun_goes_on_while_the_run_drains_until_the_folder_is_lost(job: Job) -> None:
    with open_ledger(job) as ledger:
        committer = ledger.committer()
        permits = Permit(committer=committer), PermitOfBegun(committer=committer)
        assert [permit.is_given() for permit in permits] == [True, True]
        ledger.lease.set_draining()
        assert [permit.is_given() for permit in permits] == [False, True]
        lost = dataclasses.replace(
            committer, token=dataclasses.replace(committer.token, epoch=committer.token.epoch + 1)
        )
        assert not Permit(committer=lost).is_given()
        assert not PermitOfBegun(committer=lost).is_given()


def test_unfinished_files_are_swept_at_the_start(job: Job) -> None:
    store = open_store(job.output)
    store.prepare(())
    store.write("tmp/left", b"half")
    with open_ledger(job):
        assert list(store.sizes("tmp")) == []


def test_unreadable_units_are_listed_and_the_list_goes_when_there_are_none(job: Job) -> None:
    run(job, stop_after=6)
    store = open_store(job.output)
    with open_ledger(job) as ledger:
        (unit,) = ledger.pending_units(ledger.survey())
        ledger.write_unreadable([UnreadableUnit(unit=unit, message="it is gone")])
        assert [json.loads(line) for line in (store.read(UNREADABLE) or b"").splitlines()] == [
            {"unit": 6, "path": unit.path, "first_row": 48, "num_rows": 2, "message": "it is gone"}
        ]
        assert messages(store) == ["unit 6: not committed: it has no receipt", "unit 6: could not be read: it is gone"]
    run(job)
    assert store.read(UNREADABLE) is None
    assert messages(store) == []


def damage(store: Store, name: str, change: Callable[[bytes], bytes | None]) -> None:
    changed = change(store.read(name) or b"")
    if changed is None:
        store.delete(name)
    else:
        store.write(name, changed)


def without_last_line(content: bytes) -> bytes:
    return content[: content.rstrip(b"\n").rfind(b"\n") + 1]


def damaged_file(store: Store, folder: str) -> str:
    """Where unit 2 has its results, dead letters or receipt."""
    receipt = receipt_of(store, 2)
    return {"data": receipt.data.name, "errors": receipt.errors.name, "receipts": receipt_name(2)}[folder]


def in_both_stores(damages: Sequence[tuple[str, Callable[[bytes], bytes | None], str]]) -> pytest.MarkDecorator:
    """All of them in a folder, and the first in a bucket too, of which reading and writing are all that is asked here."""
    places = [*(("folder", *each) for each in damages), pytest.param("s3", *damages[0], marks=pytest.mark.service)]
    return pytest.mark.parametrize(("job", "folder", "change", "text"), places, indirect=["job"])


@in_both_stores(
    [
        ("data", lambda content: None, "is missing"),
        ("data", lambda content: content + b"x", "bytes, its receipt says"),
        ("errors", without_last_line, "has 0 bytes"),
        ("receipts", lambda content: None, "not committed: it has no receipt"),
    ],
)
def test_files_that_are_not_those_of_a_receipt_are_found_and_computed_again(
    job: Job, folder: str, change: Callable[[bytes], bytes | None], text: str
) -> None:
    run(job)
    store = open_store(job.output)
    before = results(store)
    damage(store, damaged_file(store, folder), change)
    assert any(flaw.startswith("unit 2: ") and text in flaw for flaw in messages(store))
    assert run(job) == [2]
    assert results(store) == before
    assert messages(store) == []


def swapped(content: bytes) -> bytes:
    """Content of the same size with another hash."""
    return content[:-9] + b"x" + content[-8:]


@in_both_stores(
    [
        ("data", swapped, "its hash is not"),
        ("errors", lambda content: content.replace(b"20", b"21"), "its hash is not"),
        ("receipts", lambda content: content[:20], "is damaged"),
        ("receipts", lambda content: b"[]", "is damaged: it is not a JSON object"),
        ("receipts", lambda content: content.replace(b'"num_failed": 1', b'"num_failed": 0'), "it has been changed"),
    ],
)
def test_a_repair_forgets_what_is_damaged_and_a_run_computes_it_again(
    job: Job, folder: str, change: Callable[[bytes], bytes | None], text: str
) -> None:
    run(job)
    store = open_store(job.output)
    before = results(store)
    damage(store, damaged_file(store, folder), change)
    repaired = repair_run(store)
    assert [flaw.unit for flaw in repaired.remaining] == [2]
    assert text in str(repaired.remaining[0])
    assert "receipts/part-00000002.json" in repaired.removed
    assert run(job) == [2]
    assert results(store) == before
    assert repair_run(store) == Repaired(flaws=(), removed=(), remaining=())


def test_a_repair_leaves_whole_units_and_removes_what_no_receipt_names(job: Job) -> None:
    run(job)
    store = open_store(job.output)
    before = contents(store)
    store.write("data/part-00000003-e1-00000000.parquet", b"late")
    store.write("receipts/part-00000099.json", b"{}")
    repaired = repair_run(store)
    assert repaired.removed == ("data/part-00000003-e1-00000000.parquet", "receipts/part-00000099.json")
    assert repaired.remaining == ()
    assert contents(store) == before


def test_a_repair_is_refused_under_a_live_run(job: Job) -> None:
    run(job, stop_after=3)
    store = open_store(job.output)
    with open_ledger(job), pytest.raises(LeaseError, match="another run holds"):
        repair_run(store)


def test_a_repair_of_a_folder_without_a_run_makes_nothing_there(tmp_path: Path) -> None:
    (flaw,) = repair_run(LocalStore.at(str(tmp_path / "nothing"))).remaining
    assert "has no run.json" in str(flaw)
    assert not (tmp_path / "nothing").exists()


def unsealed(content: bytes, **changes: Any) -> bytes:
    """A receipt or record with other values, as a version before would have written it: without a seal."""
    values = json.loads(content)
    del values["seal"]
    return json.dumps(values | changes).encode()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_failed": 5}, "8 rows went in, 7 were written and 5 failed"),
        ({"num_rows": 9, "num_written": 8}, "it is of unit 2 with 9 rows, 8 were planned for unit 2"),
        ({"num_written": 8, "num_failed": 0}, "has 7 rows, its receipt says 8"),
        ({"seconds": "long"}, "its seconds is 'long', which is not a duration"),
        ({"num_failed": True}, "its num_failed is True, which is not a count"),
        ({"data": {"name": "data/../../x", "num_bytes": 1, "sha256": "0" * 64}}, "belongs to its unit, epoch and hash"),
    ],
)
def test_a_receipt_that_does_not_add_up_is_found_even_without_its_seal(
    local_job: Job, changes: dict[str, Any], text: str
) -> None:
    run(local_job)
    store = open_store(local_job.output)
    damage(store, "receipts/part-00000002.json", lambda content: unsealed(content, **changes))
    assert any(text in message for message in messages(store))


def test_rows_of_other_units_and_files_of_no_unit_are_found(local_job: Job) -> None:
    run(local_job)
    store = open_store(local_job.output)
    store.write("data/part-00000099-e1-00000000.parquet", b"x")
    store.write("errors/notes.txt", b"x")
    assert messages(store) == [
        "data/part-00000099-e1-00000000.parquet belongs to no unit of this run",
        "errors/notes.txt belongs to no unit of this run",
    ]


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    (message,) = messages(LocalStore.at(str(tmp_path)))
    assert "has no run.json" in message


def test_the_record_says_what_the_run_is_without_its_secrets(local_job: Job) -> None:
    job = dataclasses.replace(
        local_job,
        input=dataclasses.replace(local_job.input, storage_options={"token": "hush-in"}),
        output=dataclasses.replace(local_job.output, storage_options={"token": "hush-out"}),
    )
    run(job)
    store = open_store(job.output)
    record = read_record(store)
    assert record is not None
    assert record.schema == pa.schema([("id", pa.int64())]).append(pa.field("text", pa.string()))
    assert (record.plan.num_units, record.plan.num_rows, record.plan.num_files) == (7, 50, 1)
    assert record.spec["task"]["kind"] == "generate"
    assert set(record.versions) >= {"python", "torch", "ray", "millrace"}
    assert "hush" not in "".join(path.read_bytes().decode("latin-1") for path in Path(job.output.path).rglob("*.*"))


def test_the_record_of_a_cascade_names_its_models_and_bounds_without_secrets(local_job: Job) -> None:
    model = dataclasses.replace(local_job.model, storage_options={"secret": "hush"})
    further = Escalation(below=0.75, model=model, engine=EngineSpec())
    job = dataclasses.replace(local_job, cascade=(further,))
    run(job)
    store = open_store(job.output)
    assert b"hush" not in (store.read(RUN) or b"")
    record = read_record(store)
    assert record is not None
    assert record.step_names == job.step_names
    assert record.bounds == (0.75,)
    assert "cascade" not in json.loads(store.read(RUN) or b"")["spec"]["model"]


def test_a_damaged_record_is_named(local_job: Job) -> None:
    run(local_job)
    open_store(local_job.output).write(RUN, b"{}")
    with pytest.raises(DamageError, match=r"run\.json is damaged: it has no arrow_schema; restore it"):
        open_ledger(local_job)


def test_the_plan_is_read_from_any_unit_on(local_job: Job) -> None:
    run(local_job, stop_after=0)
    with open_store(local_job.output).open(UNITS) as file:
        assert [unit.index for unit in iter_units(file, start=4)] == [4, 5, 6]


def test_a_unit_whose_rows_do_not_add_up_is_our_own_mistake(local_job: Job) -> None:
    with open_ledger(local_job) as ledger:
        plan(local_job, ledger)
        work = finished(local_job, ledger, next(ledger.pending_units(ledger.survey())))
        with pytest.raises(AssertionError, match="unit 0 has 8 rows"):
            ledger.committer().commit(dataclasses.replace(work, failures=()))


def test_lease_state_is_what_the_file_holds(local_job: Job) -> None:
    with open_ledger(local_job) as ledger:
        content = ledger.store.read(LEASE)
        assert content is not None
        state = LeaseState.from_json(content)
        assert state.is_of(ledger.lease.token)
        assert {"owner", "epoch", "heartbeat", "draining", "host", "pid"} <= set(json.loads(content))


def test_units_read_from_an_object_store_are_the_same(job: Job) -> None:
    with open_ledger(job) as ledger:
        plan(job, ledger)
        assert ledger.record is not None
        reader = UnitReader(schema=ledger.record.schema, storage=Storage(job.input.storage_options))
        read = list(reader.read_units(ledger.pending_units(ledger.survey())))
    rows = [row["id"] for some in read if isinstance(some, UnitRows) for row in some.rows.as_json()]
    assert rows == [number for number in range(50) if number % 10]
