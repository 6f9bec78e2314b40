"""What tests of several packages share: tiny checkpoints with random weights and a tokenizer, an S3 server on this machine, a Ray
cluster; and in which order modules run.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from models.config.types import Head
from tests.helpers.cluster_guard import ClusterGuard, uses_shared_cluster
from tests.helpers.durations import Durations
from tests.helpers.models.tiny_tokenizers import KINDS
from tests.helpers.pipelines.here_pool import HerePool
from tests.helpers.shared_cluster import SharedCluster
from tests.helpers.tiny_checkpoints import save_with_tokenizer

settings.register_profile("any machine", deadline=None)  # a test that is slow on a busy one is not wrong
settings.load_profile("any machine")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # for every cluster of the tests: it tells nobody about them

CheckpointMaker = Callable[..., Path]

CLUSTER = SharedCluster()

SERVERS = frozenset({"s3_options"})
"""Fixtures that start a server on this machine."""

LONGEST = (
    "jobs/serve/test_service.py",
    "jobs/test_submit.py",
    "jobs/demo/test_demo.py",
    "pipelines/ledger/test_ledger.py",
)
"""Modules that take most of a minute or more, and would come when there is little left to do beside them."""


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ClusterGuard())
    config.pluginmanager.register(Durations())


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes go by the name of their argument: compressed ones may hold the time, and every process has to name a test alike."""
    return argname if isinstance(val, bytes) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test that asks for a server has the marker of those."""
    if not SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("service")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that no process is left with one at the end; then those on the shared cluster, in a row."""
    places = {str(Path(__file__).parent / name): place for place, name in enumerate(LONGEST)}

    def rank(item: pytest.Item) -> tuple[int, bool]:
        return places.get(str(item.path), len(places)), not uses_shared_cluster(item)

    items.sort(key=rank)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if uses_shared_cluster(item):
        CLUSTER.join()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or not (uses_shared_cluster(nextitem) or leaves_cluster_alone(item, nextitem)):
        CLUSTER.leave()


def leaves_cluster_alone(item: pytest.Item, nextitem: pytest.Item) -> bool:
    """Whether the next test is one of the same module that has nothing to do with Ray: the module after it may be on the cluster again."""
    return nextitem.path == item.path and nextitem.get_closest_marker("cluster") is None


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are slower on two, and another process of tests has the same cores. Actors set the number for the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prepared_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are opened, and rows prepared, in this process: for tests of what is found, not of the limits of a child that finds it."""
    monkeypatch.setattr("pipelines.unit_steps.isolated_preparer.IsolatedPool", HerePool)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function (head, family, **config fields) -> folder of a random checkpoint with a byte-level tokenizer, shared by all tests."""
    made: dict[str, Path] = {}

    def make(head: Head = "causal", *, family: str = "qwen3", **fields: Any) -> Path:
        key = f"{head} {family} {sorted(fields.items())}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint")
            save_with_tokenizer(made[key], family, head, fields)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: kind of tokenizer (see tiny_tokenizers.KINDS) -> folder with its files, shared by all tests."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            KINDS[kind](made[kind])
        return made[kind]

    return make


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, Any]]:
    """Storage options of an S3 server on this machine, with an empty bucket called `bucket`."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"},
    }
    s3fs.S3FileSystem(**options).call_s3("create_bucket", Bucket="bucket")
    yield options
    server.stop()
