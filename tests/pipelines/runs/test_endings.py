"""How `millrace run` ends as a process: its status, in time, whatever has become of its streams, its signals and its cluster.

Runs with clusters of their own that are killed are in `tests/faults`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.helpers.pipelines.control_stores import strange_server
from tests.helpers.pipelines.killing import Bench
from tests.helpers.pipelines.running import rows_in, short_folder
from tests.helpers.pipelines.terminals import status_of_hung_up

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

NUM_ROWS = 24


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("sequence-classification")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, model: Path, temp: Path) -> Bench:
    task = {"kind": "classify", "text": "{{ body }}"}
    return Bench(tmp_path_factory.mktemp("endings"), model, temp, task=task, num_rows=NUM_ROWS)


def command(bench: Bench, name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobs", "run", str(bench.spec(name)), *arguments]


@pytest.mark.cluster
def test_a_run_that_nobody_can_hear_ends_well(bench: Bench, model: Path) -> None:
    """Stdout is closed, stderr a full disk; and what is missing is that somebody is told."""
    address = ray.get_runtime_context().gcs_address
    shell = 'exec "$@" >&- 2>/dev/full'
    ended = subprocess.run(["sh", "-c", shell, "sh", *command(bench, "deaf", "--address", address)], check=False)
    assert ended.returncode == 0
    check_whole(bench.out("deaf"), model)


@pytest.mark.cluster
@pytest.mark.faults
def test_a_terminal_that_hangs_up_ends_a_run_unless_that_is_ignored(bench: Bench, model: Path) -> None:
    """As SIGTERM does; and with SIGHUP ignored, as under nohup, a run loses nothing but its line. One that computes when its terminal
    goes, on a cluster of its own, is in `tests/faults`."""
    on_terminal = command(bench, "hung-up", "--address", ray.get_runtime_context().gcs_address)
    assert status_of_hung_up(on_terminal, os.environ, is_ignored=False) == 130
    assert status_of_hung_up(on_terminal, os.environ, is_ignored=True) == 0
    check_whole(bench.out("hung-up"), model)


def check_whole(out: Path, model: Path) -> None:
    """Every row has the label that transformers gives it, and the report is there."""
    rows = rows_in(out)
    assert [row["id"] for row in rows] == list(range(NUM_ROWS))
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
    for row in rows:
        with torch.no_grad():
            score, label = network(**tokenizer(row["body"], return_tensors="pt")).logits[0].softmax(dim=-1).max(dim=-1)
        assert row["label"] == network.config.id2label[int(label)]
        assert row["score"] == pytest.approx(float(score), abs=1e-5)
    assert (out / "report.html").exists()


def refused(bench: Bench, name: str, *arguments: str, **environment: str) -> str:
    """What a run says that is refused with 2, in seconds and before it has taken anything."""
    began = time.monotonic()
    ended = subprocess.run(
        command(bench, name, *arguments),
        env={name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert time.monotonic() - began < 10.0
    assert not bench.out(name).exists()
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.cluster("own")
def test_an_address_that_nobody_listens_at_is_refused_before_the_lease_is_taken(bench: Bench) -> None:
    said = refused(bench, "nobody", "--address", "127.0.0.1:1")
    assert "millrace: no process listens at the Ray cluster '127.0.0.1:1'" in said


@pytest.mark.cluster("own")
def test_a_proxy_that_answers_for_any_address_is_refused_before_the_lease_is_taken(bench: Bench) -> None:
    with strange_server() as address:
        said = refused(bench, "proxy", "--address", address)
    assert f"millrace: what listens at '{address}' is not a Ray cluster" in said


@pytest.mark.cluster("own")
def test_a_temporary_folder_too_long_for_sockets_is_refused_with_the_remedy(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / ("t" * 80)
    folder.mkdir()
    assert "set RAY_TMPDIR to a short folder" in refused(bench, "long", TMPDIR=str(folder))


@pytest.mark.cluster("own")
def test_a_temporary_folder_that_cannot_be_written_is_refused_with_the_remedy(bench: Bench) -> None:
    assert "set RAY_TMPDIR to a short folder" in refused(bench, "unwritable", RAY_TMPDIR="/proc/1/fdinfo")
