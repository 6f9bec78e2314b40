"""An object store that loses answers, cuts bodies, throttles and refuses: what is tried again, known as one's own, or said."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import OutputError, SourceError
from pipelines.io.inputs import Storage, with_retries
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import InputSpec, OutputSpec
from pipelines.ledger.check import check_run
from pipelines.ledger.lease import LEASE, Lease, ensure_owned
from pipelines.ledger.run_record import RUN
from pipelines.units.listing import list_sources
from tests.helpers.faulty_store import Act, Fault, FaultyStore, cut_body, lose_answer, lose_request, refuse
from tests.pipelines.ledger.test_ledger import make_job, messages, results, run

DICE = 0.03

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client's, about connections that were cut


@pytest.fixture
def proxy(s3_options: dict[str, Any]) -> Iterator[FaultyStore]:
    with FaultyStore(s3_options["client_kwargs"]["endpoint_url"]) as made:
        yield made


@pytest.fixture
def options(proxy: FaultyStore, s3_options: dict[str, Any]) -> dict[str, Any]:
    return proxy.options(s3_options)


@pytest.fixture
def store(options: dict[str, Any], tmp_path: Path) -> Store:
    return open_store(OutputSpec(path=f"s3://bucket/{tmp_path.name}/out", storage_options=options))


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits up to a second, and twice as long each time; how long, it throws dice for."""
    monkeypatch.setattr("pipelines.io.s3._FIRST_WAIT_S", 0.001)
    monkeypatch.setattr("botocore.retryhandler.random.random", lambda: DICE)


CREATED: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("file", b"mine"),
    "replace": lambda store: store.replace("file", str(store.create("file", b"first")), b"mine"),
}


@pytest.mark.parametrize("write", CREATED)
def test_a_conditional_write_whose_answer_got_lost_is_known_as_ours(
    store: Store, proxy: FaultyStore, write: str
) -> None:
    place = {"create": 0, "replace": 1}[write]
    seen = itertools.count()
    proxy.add(Fault("PUT", "/file", lambda forward: lose_answer(forward) if next(seen) == place else forward()))
    version = CREATED[write](store)
    found = store.read_versioned("file")
    assert found is not None
    assert (found.content, found.version) == (b"mine", version)
    assert len(proxy.seen("PUT", "/file")) == place + 2


def test_a_write_of_somebody_else_is_not_taken_for_ours(store: Store, proxy: FaultyStore) -> None:
    store.write("file", b"theirs")
    proxy.add(Fault("PUT", "/file", lose_request, times=1))
    assert store.create("file", b"mine") is None
    assert store.read("file") == b"theirs"


def test_a_conflict_with_a_write_that_is_under_way_is_tried_again(store: Store, proxy: FaultyStore) -> None:
    proxy.add(Fault("PUT", "/file", refuse(409, "ConditionalRequestConflict"), times=3))
    assert store.create("file", b"mine") is not None
    assert store.read("file") == b"mine"


def test_a_conflict_without_end_is_a_write_that_somebody_else_won(store: Store, proxy: FaultyStore) -> None:
    proxy.add(Fault("PUT", "/file", refuse(409, "ConditionalRequestConflict")))
    assert store.create("file", b"mine") is None


@pytest.mark.parametrize("number", range(4))
def test_a_lost_answer_to_any_request_of_the_probe_makes_no_store_unfit(
    store: Store, proxy: FaultyStore, number: int
) -> None:
    seen = itertools.count()
    proxy.add(Fault("PUT", "/probe-", lambda forward: lose_answer(forward) if next(seen) == number else forward()))
    store.prepare(())
    assert next(seen) > 4


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "said the proxy; check the permissions there"),
        (403, "ExpiredToken", "said the proxy; renew the credentials"),
        (501, "NotImplemented", "does not honour conditional writes"),
    ],
)
def test_only_a_store_without_conditions_is_told_as_one(
    store: Store, proxy: FaultyStore, status: int, code: str, said: str
) -> None:
    proxy.add(Fault("PUT", "/probe-", refuse(status, code)))
    with pytest.raises(OutputError, match=said) as caught:
        store.prepare(())
    assert ("conditional" in str(caught.value)) == (code == "NotImplemented")


READS: dict[str, tuple[str, str, Callable[[Store], object], object]] = {
    "read": ("GET", "/file", lambda store: store.read("file"), b"x" * 5000),
    "open": ("GET", "/file", lambda store: store.open("file").read(), b"x" * 5000),
    "sizes": ("GET", "list-type=2", lambda store: list(store.sizes("data")), [("a", 1)]),
    "times": ("GET", "list-type=2", lambda store: list(store.times("data")), ["a"]),
}


@pytest.mark.parametrize("act", [cut_body, lose_answer, lose_request], ids=["cut", "answer lost", "request lost"])
@pytest.mark.parametrize("name", READS)
def test_a_reading_that_is_cut_off_is_tried_again(store: Store, proxy: FaultyStore, name: str, act: Act) -> None:
    method, path, read, expected = READS[name]
    store.write("file", b"x" * 5000)
    store.write("data/a", b"x")
    proxy.add(Fault(method, path, act, times=1))
    assert read(store) == expected


def test_a_body_that_is_always_cut_is_an_output_error(store: Store, proxy: FaultyStore) -> None:
    store.write("file", b"x" * 5000)
    proxy.add(Fault("GET", "/file", cut_body))
    with pytest.raises(OutputError, match=r"cannot read s3://.*/out/file"):
        store.read("file")
    assert len(proxy.seen("GET", "/file")) == 5


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (503, "ServiceUnavailable")])
def test_throttling_is_waited_for_longer_and_longer(store: Store, proxy: FaultyStore, status: int, code: str) -> None:
    proxy.add(Fault("PUT", "/file", refuse(status, code), times=3))
    store.write("file", b"x")
    waits = [later - earlier for earlier, later in itertools.pairwise(proxy.seen("PUT", "/file"))]
    assert len(waits) == 3
    assert all(wait >= DICE * 2**number for number, wait in enumerate(waits))


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("PUT", lambda store: store.write("file", b"x")),
        ("PUT", lambda store: store.create("file", b"x")),
        ("GET", lambda store: store.read("file")),
        ("DELETE", lambda store: store.delete("file")),
    ],
    ids=["write", "create", "read", "delete"],
)
def test_an_expired_token_is_said_and_not_tried_again(
    store: Store, proxy: FaultyStore, method: str, call: Callable[[Store], object], status: int
) -> None:
    proxy.add(Fault(method, "/file", refuse(status, "ExpiredToken")))
    with pytest.raises(OutputError, match="renew the credentials and run again, what is committed stays"):
        call(store)
    assert len(proxy.seen(method, "/file")) == 1


def test_a_lease_is_taken_kept_and_given_back_though_every_answer_is_lost_once(
    store: Store, proxy: FaultyStore
) -> None:
    is_lost = itertools.cycle([True, False])
    proxy.add(Fault("PUT", LEASE, lambda forward: lose_answer(forward) if next(is_lost) else forward()))
    with Lease.take(store, heartbeat_s=60, expiry_s=15) as lease:
        for _ in range(3):
            lease._beat()
        lease.set_draining()
        lease.check()
        state = ensure_owned(store, lease.token)
        assert (state.epoch, state.heartbeat, state.is_draining) == (1, 3, True)
    with Lease.take(store, heartbeat_s=60, expiry_s=15) as lease:
        assert lease.token.epoch == 2


FAULTS = [
    *(Fault("PUT", path, lose_answer, times=1) for path in (RUN, "units.", "receipts/part-00000002", LEASE)),
    *(Fault("PUT", path, lose_answer, times=2) for path in ("/data/", "/errors/")),
    *(
        Fault("GET", path, cut_body, times=1)
        for path in ("in.jsonl", LEASE, "units.", "list-type", "receipts/part-00000001")
    ),
    *(Fault(method, "/out/", refuse(503, "SlowDown"), times=2) for method in ("PUT", "GET", "DELETE")),
]


def test_a_whole_run_over_a_store_with_faults_gives_what_it_gives_without(
    proxy: FaultyStore, options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    whole = make_job(tmp_path / "whole", f"{tmp_path}/whole/", {})
    run(whole)
    (tmp_path / "faulty").mkdir()
    job = make_job(tmp_path / "faulty", f"s3://bucket/{tmp_path.name}/", options)
    proxy.add(*(replace(fault) for fault in FAULTS))
    assert run(job, stop_after=4) == list(range(4))
    assert run(job) == [4, 5, 6]
    store = open_store(job.output)
    assert messages(store) == []
    assert all(not fault.times for fault in proxy.faults)
    assert [data for data, _ in results(store)] == [data for data, _ in results(open_store(whole.output))]


def test_results_that_are_refused_are_said_with_the_place(
    proxy: FaultyStore, options: dict[str, Any], tmp_path: Path
) -> None:
    job = make_job(tmp_path, f"s3://bucket/{tmp_path.name}/", options)
    proxy.add(Fault("PUT", "/data/", refuse(403, "AccessDenied")))
    with pytest.raises(
        OutputError, match=r"cannot write s3://.*/out/data/part-00000000-e1-\w{8}\.parquet: .*check the permissions"
    ):
        run(job)
    proxy.heal()
    assert [flaw.message for flaw in check_run(open_store(job.output))] == ["not committed: it has no receipt"] * 7
    assert run(job) == list(range(7))


@pytest.mark.parametrize("act", [cut_body, lose_answer, refuse(503, "SlowDown")], ids=["cut", "lost", "throttled"])
def test_inputs_are_listed_and_read_again(
    proxy: FaultyStore, options: dict[str, Any], tmp_path: Path, act: Act
) -> None:
    storage = Storage(options)
    system, key = storage.resolve(f"s3://bucket/{tmp_path.name}/in/a.jsonl")
    system.pipe_file(key, b'{"body": "x"}\n' * 100)
    system.invalidate_cache()
    path = f"s3://bucket/{tmp_path.name}/in"
    proxy.add(Fault("GET", "list-type", act, times=1))
    sources = list_sources(InputSpec(paths=(path,), storage_options=options))
    assert [(source.path, source.size) for source in sources] == [(f"{path}/a.jsonl", 1400)]
    proxy.add(Fault("GET", "/a.jsonl", act, times=1))
    assert storage.read(sources[0].path, 14, 14) == b'{"body": "x"}\n'
    proxy.add(Fault("GET", "/a.jsonl", act, times=1))
    assert storage.content(sources[0].path).read(1400) == b'{"body": "x"}\n' * 100


@pytest.mark.parametrize("status", [400, 403])
def test_an_input_whose_credentials_have_expired_is_not_tried_again(
    proxy: FaultyStore, options: dict[str, Any], tmp_path: Path, status: int
) -> None:
    storage, path = Storage(options), f"s3://bucket/{tmp_path.name}/a.jsonl"
    system, key = storage.resolve(path)
    system.pipe_file(key, b"{}\n")
    proxy.add(Fault("GET", "/a.jsonl", refuse(status, "ExpiredToken")))
    with pytest.raises(SourceError, match="said the proxy"):
        with_retries(lambda: storage.read(path, 0, 3), sleep=never)


def never(seconds: float) -> None:
    raise AssertionError("what has expired is not waited for")
