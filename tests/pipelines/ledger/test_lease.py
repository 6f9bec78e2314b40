"""One run at a time: taking, keeping, losing and inheriting the lease of an output folder."""

import dataclasses
import functools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import LeaseError, OutputError
from pipelines.io.local import LocalStore
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import OutputSpec
from pipelines.ledger import lease as lease_module
from pipelines.ledger.lease import LEASE, Lease, LeaseState, LeaseToken, ensure_owned, read_lease
from pipelines.ledger.process_identity import ProcessIdentity

EXPIRY_S = 0.3
take = functools.partial(Lease.take, heartbeat_s=0.02, expiry_s=EXPIRY_S)
ELSEWHERE = ProcessIdentity(host="elsewhere", pid=7, place="another machine", start_time="1")
HOLDER = """
import sys, time
from pipelines.job import OutputSpec
from pipelines.ledger.lease import Lease
from pipelines.io.open_output import open_store
store = open_store(OutputSpec(path=sys.argv[1]))
try:
    lease = Lease.take(store, heartbeat_s=0.05, expiry_s=0.5)
except Exception as error:
    print(f"refused: {error}", flush=True)
else:
    print(lease.token.epoch, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.service)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    path, options = str(tmp_path), {}
    if request.param == "s3":
        path, options = f"s3://bucket/lease/{tmp_path.name}", request.getfixturevalue("s3_options")
    made = open_store(OutputSpec(path=path, storage_options=options))
    made.prepare(())
    return made


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    made = LocalStore.at(str(tmp_path))
    made.prepare(())
    return made


def leave(store: Store, **changes: Any) -> LeaseState:
    """A lease that some run has left behind."""
    state = LeaseState(owner="them", epoch=3, heartbeat=5, is_draining=False, process=ELSEWHERE)
    state = dataclasses.replace(state, **changes)
    assert store.create(LEASE, state.to_json()) is not None
    return state


def gone() -> ProcessIdentity:
    """A process of this machine that has ended."""
    return dataclasses.replace(ProcessIdentity.current(), start_time="0")


def never(seconds: float) -> None:
    raise AssertionError("there was nothing to wait for")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_lease_names_its_holder_and_counts_its_heartbeats(store: Store) -> None:
    with take(store) as lease:
        until(lambda: (state := read_lease(store)) and state.heartbeat >= 2)
        state = ensure_owned(store, lease.token)
        assert (state.epoch, state.is_draining, state.process) == (1, False, ProcessIdentity.current())
        lease.check()


def test_draining_is_seen_by_workers_and_survives_heartbeats(store: Store) -> None:
    with take(store) as lease:
        lease.set_draining()
        beat = ensure_owned(store, lease.token).heartbeat
        until(lambda: ensure_owned(store, lease.token).heartbeat > beat)
        assert ensure_owned(store, lease.token).is_draining


def test_a_released_lease_is_taken_at_once_with_the_next_epoch(store: Store) -> None:
    first = take(store)
    first.release()
    first.release()
    with pytest.raises(LeaseError, match="not held by any run"):
        ensure_owned(store, first.token)
    with take(store, sleep=never) as second:
        assert second.token.epoch == 2


def test_a_holder_on_this_machine_that_lives_is_named_at_once(folder: LocalStore) -> None:
    holder = ProcessIdentity.current()
    with (
        take(folder),
        pytest.raises(LeaseError, match=rf"process {holder.pid} on {holder.host}, which is running \(epoch 1"),
    ):
        take(folder, sleep=never)


def test_a_holder_elsewhere_whose_heart_beats_is_named_with_its_heartbeats(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ProcessIdentity, "current", lambda: ELSEWHERE)
        holder = take(store)
    with holder, pytest.raises(LeaseError, match=r"process 7 on elsewhere, whose heartbeat is at \d+ and counting"):
        take(store)


def test_a_heartbeat_that_stands_still_expires(store: Store) -> None:
    left = leave(store)
    start = time.monotonic()
    with take(store) as lease:
        assert time.monotonic() - start >= EXPIRY_S
        assert lease.token.epoch == left.epoch + 1


def test_a_holder_on_this_machine_that_is_gone_has_expired_at_once(folder: LocalStore) -> None:
    leave(folder, process=gone())
    with take(folder, sleep=never) as lease:
        assert lease.token.epoch == 4


def test_a_holder_that_releases_while_it_is_watched_is_followed(folder: LocalStore) -> None:
    left = leave(folder)

    def release(seconds: float) -> None:
        folder.write(LEASE, dataclasses.replace(left, owner=None).to_json())

    with take(folder, sleep=release) as lease:
        assert lease.token.epoch == 4


def test_of_many_newcomers_to_an_expired_lease_one_wins(store: Store) -> None:
    leave(store)
    start = threading.Barrier(6)
    outcomes: list[Lease | LeaseError] = []

    def race() -> None:
        start.wait()
        try:
            outcomes.append(take(store))
        except LeaseError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [lease for lease in outcomes if isinstance(lease, Lease)]
    assert [lease.token.epoch for lease in winners] == [4]
    winners[0].release()


def test_a_holder_that_was_replaced_notices_and_writes_no_more(store: Store) -> None:
    lease = take(store)
    taken = LeaseState(owner="them", epoch=2, heartbeat=0, is_draining=False, process=ELSEWHERE)
    store.write(LEASE, taken.to_json())
    until(lambda: not lease._thread.is_alive())
    with pytest.raises(LeaseError, match="another run has taken it over"):
        lease.check()
    with pytest.raises(LeaseError, match=r"epoch 1\): it is now at epoch 2, held by process 7 on elsewhere"):
        ensure_owned(store, lease.token)
    lease.set_draining()
    lease.release()
    assert store.read(LEASE) == taken.to_json()


def test_a_heartbeat_that_cannot_be_written_for_long_loses_the_lease(
    folder: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, name: str, version: str, content: bytes) -> str | None:
        raise OutputError("disk full")

    now = [0.0]
    lease = Lease.take(folder, heartbeat_s=60, expiry_s=15, clock=lambda: now[0])
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "replace", fail)
        now[0] = 14.0
        lease.check()
        now[0] = 16.0
        with pytest.raises(LeaseError, match=r"could not be written for 16 s \(disk full\)"):
            lease.check()
    lease.release()


def test_a_process_that_stood_still_goes_on_if_nobody_took_its_lease(store: Store) -> None:
    now = [0.0]
    with Lease.take(store, heartbeat_s=60, expiry_s=15, clock=lambda: now[0]) as lease:
        before = ensure_owned(store, lease.token).heartbeat
        now[0] = 3600.0
        lease.check()
        assert ensure_owned(store, lease.token).heartbeat == before + 1
        lease.check()
        assert ensure_owned(store, lease.token).heartbeat == before + 1  # the silence is over


def test_a_process_that_stood_still_has_lost_what_another_took(store: Store) -> None:
    now = [0.0]
    lease = Lease.take(store, heartbeat_s=60, expiry_s=15, clock=lambda: now[0])
    taken = LeaseState(owner="them", epoch=2, heartbeat=0, is_draining=False, process=ELSEWHERE)
    store.write(LEASE, taken.to_json())
    now[0] = 3600.0
    with pytest.raises(LeaseError, match="another run has taken it over"):
        lease.check()
    assert store.read(LEASE) == taken.to_json()
    lease.release()


def test_a_write_of_this_run_that_was_never_heard_of_is_gone_on_from(
    folder: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat landed and its answers were lost for so long that it counted as failed; what comes next is no heartbeat."""
    replace = LocalStore.replace

    def unheard(self: LocalStore, name: str, version: str, content: bytes) -> str | None:
        replace(self, name, version, content)
        raise OutputError("timed out")

    with Lease.take(folder, heartbeat_s=60, expiry_s=15) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "replace", unheard)
            with pytest.raises(OutputError):
                lease._beat()
        lease.set_draining()
        lease.check()
        state = ensure_owned(folder, lease.token)
        assert (state.heartbeat, state.is_draining) == (1, True)


LEFT = LeaseState(owner="them", epoch=3, heartbeat=5, is_draining=False, process=ELSEWHERE).to_json()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"owner": 1}',
        b"\xff",
        LEFT[:-2],
        LEFT.replace(b'"epoch": 3', b'"epoch": "3"'),
        LEFT.replace(b'"epoch": 3', b'"epoch": -3'),
        LEFT.replace(b'"epoch": 3', b'"epoch": 1000000000'),
        LEFT.replace(b'"heartbeat": 5', b'"heartbeat": 5.5'),
        LEFT.replace(b'"draining": false', b'"draining": 0'),
        LEFT.replace(b'"them"', b"7"),
    ],
)
def test_a_damaged_lease_is_named(folder: LocalStore, content: bytes) -> None:
    folder.write(LEASE, content)
    with pytest.raises(LeaseError, match=r"lease\.json is not a lease"):
        take(folder)


def test_a_folder_without_lease_belongs_to_nobody(folder: LocalStore) -> None:
    assert read_lease(folder) is None
    with pytest.raises(LeaseError, match="no lease any more"):
        ensure_owned(folder, LeaseToken(owner="us", epoch=1))


@pytest.fixture
def start_holder(folder: LocalStore) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLDER, folder.location]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_killed_process_is_followed_at_once_even_as_a_zombie(
    folder: LocalStore, start_holder: Callable[[], "subprocess.Popen[str]"]
) -> None:
    holder = start_holder()
    assert line_of(holder) == "1"
    with pytest.raises(LeaseError, match=f"process {holder.pid} .* is running"):
        take(folder, sleep=never)
    holder.send_signal(signal.SIGKILL)
    until(lambda: ProcessIdentity.is_alive(ensure_owned_by_anyone(folder)) is False)
    with take(folder, sleep=never) as lease:
        assert lease.token.epoch == 2


def ensure_owned_by_anyone(folder: LocalStore) -> ProcessIdentity:
    state = read_lease(folder)
    assert state is not None
    return state.process


def test_of_many_processes_one_wins(folder: LocalStore, start_holder: Callable[[], "subprocess.Popen[str]"]) -> None:
    leave(folder, process=gone())
    lines = sorted(line_of(process) for process in [start_holder() for _ in range(4)])
    assert lines[0] == "4"
    assert [line.startswith("refused: another run holds") for line in lines[1:]] == [True] * 3


def test_a_stopped_holder_that_wakes_up_after_a_takeover_has_lost(folder: LocalStore) -> None:
    asleep = Lease.take(folder, heartbeat_s=60, expiry_s=60)
    state = read_lease(folder)
    assert state is not None
    folder.write(LEASE, dataclasses.replace(state, process=ELSEWHERE).to_json())
    with take(folder) as lease:
        asleep.set_draining()
        with pytest.raises(LeaseError):
            asleep.check()
        assert not ensure_owned(folder, lease.token).is_draining
    asleep.release()


def test_nothing_is_concluded_where_the_kernel_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.ledger.process_identity._boot_and_namespace", lambda: None)
    assert ProcessIdentity.current().is_alive() is None


def test_the_defaults_are_two_and_fifteen_seconds() -> None:
    assert (lease_module.HEARTBEAT_S, lease_module.EXPIRY_S) == (2.0, 15.0)
