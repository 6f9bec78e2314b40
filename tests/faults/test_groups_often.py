"""Everything that can happen to a shard, at moments drawn from a seed, over and over on one cluster (make faults)."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import yaml

from tests.helpers.pipelines.grouping import (
    LONG,
    NUM_ROWS,
    STEP_TIMEOUT_S,
    UNIT_ROWS,
    Bench,
    bench_of,
    check_disturbed,
    check_released,
)
from tests.helpers.pipelines.killing import GENERATE, PATIENCE_S, wait_until
from tests.helpers.pipelines.running import contents

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

MOMENTS = sorted(random.Random(20262).sample(range(NUM_ROWS // UNIT_ROWS - 10), 3))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Iterator[Bench]:
    with bench_of(tmp_path_factory.mktemp("groups"), tiny_checkpoint("causal")) as bench:
        yield bench


@pytest.mark.parametrize("units", MOMENTS)
@pytest.mark.parametrize("what", ["shard killed", "rank 0 killed", "shard stopped", "rank 0 stopped", "node removed"])
def test_the_output_is_that_of_one_process(bench: Bench, what: str, units: int) -> None:
    check_disturbed(bench, what, units=units)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_takes_its_groups_with_it(bench: Bench, tmp_path: Path, number: signal.Signals) -> None:
    """`millrace run` in a process of its own on the same cluster, ended in mid-run and started again."""
    job = bench.job(f"driver-{number}", tensor_parallel_size=2)
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        yaml.safe_dump(
            {
                "name": "ended",
                "model": {"path": job.model.path, "dtype": "float32"},
                "task": {
                    **GENERATE,
                    "sampling": {"max_tokens": LONG.sampling.max_tokens, "temperature": 0.0, "ignore_eos": True},
                },
                "input": {"paths": list(job.input.paths)},
                "output": {"path": job.output.path, "format": "jsonl"},
                "engine": {"tensor_parallel_size": 2, "max_num_seqs": 16, "step_timeout_s": STEP_TIMEOUT_S},
                "unit_rows": UNIT_ROWS,
            }
        )
    )
    command = [sys.executable, "-m", "jobs", "run", str(spec), "--address", ray.get_runtime_context().gcs_address]
    with subprocess.Popen(command) as first:
        committed = Path(job.output.path) / "receipts"
        wait_until(lambda: committed.exists() and len(list(committed.iterdir())) >= 5, "five committed units")
        first.send_signal(number)
        assert first.wait(PATIENCE_S) != 0
    check_released()
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0
    assert contents(Path(job.output.path)) == bench.expected
    check_released()
