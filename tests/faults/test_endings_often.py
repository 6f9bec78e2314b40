"""Signals in every phase of a run, and clusters of its own that die under it: the status, the time, the lease, and what is left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
import yaml

from tests.helpers.faulty_store import Fault, FaultyStore, Forward
from tests.helpers.pipelines.control_stores import control_store
from tests.helpers.pipelines.killing import (
    GENERATE,
    PATIENCE_S,
    UNIT_ROWS,
    Bench,
    Process,
    Run,
    below,
    processes_with,
    wait_until,
)
from tests.helpers.pipelines.running import rows_in, short_folder
from tests.helpers.pipelines.terminals import status_of_hung_up

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SLACK_S = 2.0
"""What a busy machine may add."""


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path], temp: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("endings"), tiny_checkpoint("causal"), temp, task=GENERATE, num_rows=4000)


def ends(run: Run, *, within_s: float) -> int:
    began = time.monotonic()
    status = run.wait()
    assert time.monotonic() - began < within_s + SLACK_S, run.output
    return status


def lease_owner(bench: Bench, name: str) -> Any:
    return json.loads((bench.out(name) / "lease.json").read_bytes())["owner"]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("delay_s", [1.0, 2.5, 3.5, 4.5, 5.5, 7.0])
def test_a_signal_ends_a_run_whatever_it_is_at(bench: Bench, number: signal.Signals, delay_s: float) -> None:
    """Imports, preflight, starting Ray, planning, starting engines."""
    name = f"{number.name}-{delay_s}"
    with bench.start(name) as run:
        time.sleep(delay_s)
        run.signal(number)
        assert ends(run, within_s=5.0) == 130
        wait_until(lambda: not processes_with(str(bench.temp)), "nothing to be left")
    if (bench.out(name) / "lease.json").exists():
        assert lease_owner(bench, name) is None


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("num_rows", [100, 400_000], ids=["in the driver", "in tasks"])
def test_a_signal_ends_a_run_that_plans(
    bench: Bench, s3_options: dict[str, Any], number: signal.Signals, num_rows: int
) -> None:
    """The store answers nothing more once the lease is taken: what reads it then is the planning."""
    name, is_held, is_over = f"{number.name}-planning-{num_rows}", threading.Event(), threading.Event()

    def hold(forward: Forward) -> None:
        del forward
        is_held.set()
        is_over.wait(PATIENCE_S)

    with FaultyStore(s3_options["client_kwargs"]["endpoint_url"]) as proxy:
        spec = with_input(bench.spec(name), upload(s3_options, num_rows), proxy.options(s3_options))
        try:
            with Run(spec, bench.out(name), bench.temp) as run:
                wait_until((bench.out(name) / "lease.json").exists, "the lease")
                proxy.add(Fault("GET", "/rows-", hold))
                wait_until(is_held.is_set, "the planning")
                assert "planning the input" in run.output
                assert not (bench.out(name) / "run.json").exists()
                run.signal(number)
                assert ends(run, within_s=5.0) == 130
                wait_until(lambda: not processes_with(str(bench.temp)), "nothing to be left")
                assert "millrace: interrupted" in run.output
        finally:
            is_over.set()
    assert not (bench.out(name) / "run.json").exists()
    assert lease_owner(bench, name) is None


def upload(s3_options: dict[str, Any], num_rows: int) -> str:
    """A corpus in the bucket: its URL."""
    url = f"s3://bucket/rows-{num_rows}.jsonl"
    lines = "".join(f'{{"id": {row}, "body": "{"a few words " * 8}"}}\n' for row in range(num_rows))
    s3fs.S3FileSystem(**s3_options).pipe_file(url, lines.encode())
    return url


def with_input(spec: Path, url: str, options: dict[str, Any]) -> Path:
    """The same spec over another input."""
    values = yaml.safe_load(spec.read_text())
    values["input"] = {"paths": [url], "storage_options": options}
    spec.write_text(yaml.safe_dump(values))
    return spec


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_a_run_that_computes(bench: Bench, number: signal.Signals) -> None:
    name = f"{number.name}-computing"
    with bench.start(name) as run:
        run.wait_for_commits(5)
        run.signal(number)
        assert ends(run, within_s=5.0) == 130
    assert "millrace: interrupted" in run.output
    assert lease_owner(bench, name) is None


def test_a_terminal_that_hangs_up_ends_a_run_that_computes_and_the_next_loses_nothing(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], temp: Path
) -> None:
    """Servers of Ray are in the group that SIGHUP goes to. The next run's terminal hangs up too, where that is ignored."""
    bench = Bench(tmp_path, tiny_checkpoint("causal"), temp, task=GENERATE, num_rows=800)
    on_terminal = [sys.executable, "-m", "jobs", "run", str(bench.spec("hung-up"))]
    env = {**os.environ, "RAY_TMPDIR": str(temp)}
    receipts = bench.out("hung-up") / "receipts"

    def committed(count: int) -> Callable[[], bool]:
        return lambda: receipts.exists() and len(list(receipts.iterdir())) >= count

    assert status_of_hung_up(on_terminal, env, is_ignored=False, is_time=committed(5)) == 130
    wait_until(lambda: not processes_with(str(temp)), "nothing to be left")
    assert lease_owner(bench, "hung-up") is None
    before = len(list(receipts.iterdir()))
    assert before < 800 / UNIT_ROWS
    assert status_of_hung_up(on_terminal, env, is_ignored=True, is_time=committed(before + 5)) == 0
    bench.check_texts("hung-up")


def part_of_cluster(run: Run, program: str) -> Process:
    (part,) = [process for process in below(run.pid) if process.title.split(" ")[0].endswith(f"/{program}")]
    return part


@pytest.mark.parametrize("program", ["gcs_server", "raylet"])
def test_a_cluster_that_dies_ends_the_run_with_a_word(bench: Bench, temp: Path, program: str) -> None:
    with bench.start(program) as run:
        run.wait_for_commits(5)
        os.kill(part_of_cluster(run, program).pid, signal.SIGKILL)
        assert ends(run, within_s=30.0) == 1
    assert "millrace: the Ray cluster" in run.output
    assert lease_owner(bench, program) is None
    assert not processes_with(str(temp))


def test_a_hung_up_terminal_does_not_end_a_run_under_nohup(bench: Bench) -> None:
    command = ["nohup", sys.executable, "-m", "jobs", "run", str(bench.spec("nohup")), "--limit", "80"]
    environment = {**os.environ, "RAY_TMPDIR": str(bench.temp)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_until((bench.out("nohup") / "run.json").exists, "a plan")
        run.send_signal(signal.SIGHUP)
        assert run.wait(120) == 0
    assert len(rows_in(bench.out("nohup"))) == 80


def test_a_reader_that_leaves_does_not_end_a_run(bench: Bench) -> None:
    command = [sys.executable, "-m", "jobs", "run", str(bench.spec("left")), "--limit", "80"]
    environment = {**os.environ, "RAY_TMPDIR": str(bench.temp)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None
        assert run.stderr.readline() == b"planning the input\n"
        run.stderr.close()
        assert run.wait(120) == 0
    assert len(rows_in(bench.out("left"))) == 80


def test_a_signal_ends_a_run_that_waits_for_an_address(bench: Bench) -> None:
    """Somebody listens, who says that a cluster is alive and nothing else: Ray asks again and again."""
    with control_store(None) as address:
        command = [sys.executable, "-m", "jobs", "run", str(bench.spec("waiting")), "--address", address]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            wait_until((bench.out("waiting") / "lease.json").exists, "the lease")
            time.sleep(2.0)
            assert run.poll() is None
            began = time.monotonic()
            run.send_signal(signal.SIGTERM)
            _, said = run.communicate(timeout=60)
    assert time.monotonic() - began < 5.0 + SLACK_S
    assert run.returncode == 130
    assert "millrace: interrupted" in said
    assert lease_owner(bench, "waiting") is None
