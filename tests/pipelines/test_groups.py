"""Whatever happens to a shard in mid-run, the output is that of one process, and nothing is left over."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.pipelines.grouping import Bench, Disturbing, check_disturbed, check_released, interrupted, three_nodes
from tests.pipelines.running import contents, drive

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with three_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Bench:
    return Bench(tmp_path_factory.mktemp("groups"), tiny_checkpoint("causal"))


@pytest.fixture(scope="module")
def expected(cluster: Cluster, bench: Bench) -> dict[str, bytes]:
    """What one process writes."""
    assert drive(bench.job("alone")).exit_status == 0
    return contents(bench.out("alone"))


@pytest.mark.parametrize("what", ["nothing", "shard killed", "rank 0 killed", "shard stopped", "node removed"])
def test_the_output_is_that_of_one_process(
    cluster: Cluster, bench: Bench, expected: dict[str, bytes], what: str
) -> None:
    check_disturbed(cluster, bench, expected, what, units=5)


def test_an_interrupted_run_leaves_nothing_behind_and_goes_on(
    cluster: Cluster, bench: Bench, expected: dict[str, bytes]
) -> None:
    job = bench.job("interrupted", tensor_parallel_size=2)
    assert drive(job, seen=Disturbing(5, interrupted)).exit_status == 130
    check_released()
    assert drive(job).exit_status == 0
    assert contents(bench.out("interrupted")) == expected
    check_released()
