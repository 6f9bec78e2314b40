"""`millrace submit` on a cluster as an operator starts one: `ray start --head`, on ports of its own, with token authentication on."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import jobs
from jobs.errors import SpecError, UsageError
from jobs.submission import Submission, submit
from tests.helpers.free_port import free_port
from tests.helpers.pipelines.killing import below
from tests.helpers.pipelines.running import short_folder, write_corpus

Finished = subprocess.CompletedProcess[str]

PATIENCE_S = 120.0
TOKEN = "a-token-of-this-test-alone-0123456789"
REPOSITORY = Path(jobs.__file__).parents[1]
CHECKPOINT = REPOSITORY / "jobs/demo/checkpoints/sequence-classification"


@dataclass(frozen=True)
class Cluster:
    address: str
    env: Mapping[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port", "metrics-export-port")
    ports = {name: free_port() for name in names}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(REPOSITORY)}
    with short_folder() as folder, (folder / "log").open("w+") as log:
        command = [
            "ray",
            "start",
            "--head",
            "--block",
            "--num-cpus=3",
            "--include-dashboard=true",
            "--node-ip-address=127.0.0.1",
        ]
        command += [f"--temp-dir={folder}", *(f"--{name}={port}" for name, port in ports.items())]
        with subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT) as head:
            found = Cluster(address=f"http://127.0.0.1:{ports['dashboard-port']}", env=env)
            try:
                wait_for_dashboard(found, head)
                yield found
            finally:
                for process in [*below(head.pid)]:  # asked to end, it takes half a minute
                    os.kill(process.pid, signal.SIGKILL)
                head.kill()


def wait_for_dashboard(cluster: Cluster, head: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(f"{cluster.address}/api/version", timeout=5)
        except urllib.error.HTTPError:  # it is there, and wants the token
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert head.poll() is None, "the head node ended"
            assert time.monotonic() < end, "the dashboard did not come"
            time.sleep(0.2)
        else:
            return


def write_spec(folder: Path, **changes: object) -> Path:
    corpus = write_corpus(folder / "rows.jsonl", 40)
    spec = {
        "name": "submitted",
        "model": {"path": str(CHECKPOINT)},
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [str(corpus)]},
        "output": {"path": str(folder / "out"), "format": "jsonl"},
        "unit_rows": 20,
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def submitted(spec: Path, cluster: Cluster, *arguments: str, token: str = TOKEN, cwd: Path | None = None) -> Finished:
    return subprocess.run(
        [sys.executable, "-m", "jobs", "submit", str(spec), "--address", cluster.address, *arguments],
        env={**cluster.env, "RAY_AUTH_TOKEN": token},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.cluster("own")
def test_the_demos_classification_runs_there_and_its_log_comes_here(cluster: Cluster, tmp_path: Path) -> None:
    """The spec as it is, with relative paths."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "jobs").symlink_to(REPOSITORY / "jobs")
    folder = corpus / "out/demo/corpus/jsonl"
    folder.mkdir(parents=True)
    lines = [f'{{"ticket_id": {n}, "customer": "c", "body": "the invoice {n} is wrong"}}\n' for n in range(30)]
    (folder / "tickets.jsonl").write_text("".join(lines))
    spec = REPOSITORY / "jobs/demo/specs/category.yaml"
    found = submitted(spec, cluster, "--limit", "20", "--set", "output.path=labelled", cwd=corpus)
    assert found.returncode == 0, found.stderr
    assert "submitted as raysubmit_" in found.stderr
    assert "20 of 20 rows committed" in found.stderr
    assert len(list((corpus / "labelled/receipts").iterdir())) == 1


@pytest.mark.cluster("own")
def test_the_exit_status_is_that_of_the_job(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, task={"kind": "classify", "text": "{{ no_such_column }}"})
    found = submitted(spec, cluster)
    assert found.returncode == 2
    assert "no_such_column" in found.stderr


@pytest.mark.cluster("own")
def test_a_wrong_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    found = submitted(write_spec(tmp_path), cluster, token="another")
    assert found.returncode == 1
    assert "did not take the job" in found.stderr
    assert not (tmp_path / "out").exists()


def test_a_wrong_spec_goes_nowhere(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unit_rows"):
        Submission.of(write_spec(tmp_path, unit_rows=-1))


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "auto"])
def test_an_address_that_is_no_url_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match="must be the URL of the cluster's dashboard"):
        submit(Submission.of(write_spec(tmp_path)), address=address, say=print)


def test_relative_paths_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write_spec(
        tmp_path,
        input={"paths": ["rows/*.jsonl", "s3://bucket/x"]},
        output={"path": "out"},
        model={"path": "Org/model"},
    )
    found = Submission.of(spec, limit=3)
    assert found.spec["input"]["paths"] == [f"{tmp_path}/rows/*.jsonl", "s3://bucket/x"]
    assert found.spec["output"]["path"] == f"{tmp_path}/out"
    assert found.spec["model"]["path"] == "Org/model"
    assert found.entrypoint == "python -m jobs run spec.yaml --address auto --limit 3"


def test_models_of_a_cascade_start_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    spec = write_spec(tmp_path)
    values = yaml.safe_load(spec.read_text())
    del values["model"]
    steps = [{"model": "./small", "until": {"score": 0.9}}, {"model": {"path": "./large", "dtype": "float32"}}]
    spec.write_text(yaml.safe_dump(values | {"cascade": steps}))
    found = Submission.of(spec).spec
    assert "model" not in found
    assert found["cascade"][0] == {"model": f"{tmp_path}/small", "until": {"score": 0.9}}
    assert found["cascade"][1]["model"] == {"path": f"{tmp_path}/large", "dtype": "float32"}
