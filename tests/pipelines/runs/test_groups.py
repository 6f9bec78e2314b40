"""A run that is interrupted, and a shard that dies when it goes on: the output is that of one process, and nothing is left over. What
else can happen to a shard, on several nodes, is in `tests/faults`, and a rank 0 that hangs in `tests/actors/engine/test_owner.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.pipelines.grouping import Bench, Disturbing, check_disturbed, check_released, interrupted
from tests.helpers.pipelines.running import drive

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def test_an_interruption_and_a_killed_shard_change_nothing(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    bench = Bench(tmp_path, tiny_checkpoint("causal"))
    job = bench.job("disturbed", tensor_parallel_size=2)
    assert drive(job, seen=Disturbing(3, interrupted)).exit_status == 130
    check_released()
    check_disturbed(bench, "shard killed", units=3, name="disturbed")
