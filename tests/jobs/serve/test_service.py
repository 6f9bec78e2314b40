"""`millrace serve` as people start it: a real service on a Ray cluster of its own, the real openai client, and jobs on its replicas."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from jobs.demo import CHECKPOINTS
from jobs.serve.environment import SERVE_ENVIRONMENT
from models import Engine, SamplingParams
from tests.helpers.actors.raw_http import connection, head, status_of, until_closed
from tests.helpers.free_port import free_port
from tests.helpers.jobs.serving import KEY, PATIENCE_S, Service, started_service
from tests.helpers.pipelines.killing import below, wait_until
from tests.helpers.pipelines.running import rows_in, write_corpus

CAUSAL, LABELS = (CHECKPOINTS / name for name in ("causal", "sequence-classification"))
PROMPTS = ["the invoice is wrong", "the parcel is late and broken", "please cancel my order"]
GREEDY: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0}

pytestmark = pytest.mark.cluster("own")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models: list[dict[str, Any]] = [
        {"name": "text", "path": str(CAUSAL), "dtype": "float32", "engine": {"replicas": 2, "max_num_seqs": 16}},
        {"name": "labels", "path": str(LABELS), "dtype": "float32"},
        {"name": "pair", "path": str(CAUSAL), "dtype": "float32", "engine": {"tensor_parallel_size": 2}},
    ]
    with started_service(tmp_path_factory.mktemp("service"), models) as service:
        yield service


@pytest.fixture(scope="module", autouse=True)
def half_sent(service: Service) -> Iterator[list[socket.socket]]:
    """Connections that send nothing and half a head, from the first test on: what they are waited for passes meanwhile."""
    with connection(service.url) as silent, connection(service.url) as half:
        half.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        yield [silent, half]


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """What the engine alone writes."""
    with Engine.from_pretrained(CAUSAL, dtype="float32") as engine:
        return [output.text for output in engine.generate(PROMPTS, SamplingParams(**GREEDY))]


def test_greedy_answers_are_those_of_the_engine(service: Service, expected: list[str]) -> None:
    found = service.client.completions.create(model="text", prompt=PROMPTS, **GREEDY)
    assert [choice.text for choice in found.choices] == expected
    pieces = service.client.completions.create(model="text", prompt=PROMPTS[0], stream=True, **GREEDY)
    assert "".join(piece.choices[0].text for piece in pieces) == expected[0]


def test_every_model_is_there_and_answers(service: Service) -> None:
    assert [model.id for model in service.client.models.list()] == ["text", "labels", "pair"]
    answer = httpx.post(
        f"{service.url}/v1/classify",
        json={"model": "labels", "input": ["the invoice is wrong"]},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    ).json()
    assert answer["data"][0]["label"] == "billing"


def test_errors_come_in_the_clients_own_types(service: Service) -> None:
    with pytest.raises(openai.NotFoundError):
        service.client.completions.create(model="none", prompt="x")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        service.client.completions.create(model="text", prompt="x", max_tokens=-1)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0).models.list()
    assert httpx.get(f"{service.url}/ready", timeout=30).status_code == 200


def job_spec(folder: Path, *, engine: dict[str, Any]) -> Path:
    spec = {
        "name": "job",
        "model": {"path": str(CAUSAL), "dtype": "float32"},
        "task": {"kind": "generate", "prompt": "{{ body }}", "sampling": GREEDY},
        "input": {"paths": [str(folder / "rows.jsonl")]},
        "output": {"path": str(folder / "out"), "format": "jsonl"},
        "engine": engine,
        "unit_rows": 20,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def run_job(service: Service, spec: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "jobs", "run", str(spec)]
    return subprocess.run(command, env=service.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_job_uses_the_services_replicas_and_survives_one(service: Service, tmp_path: Path) -> None:
    """A replica is killed while the job runs: it costs a retry, and every row is what the engine alone writes. The job has the
    environment of the image."""
    write_corpus(tmp_path / "rows.jsonl", 400)
    bodies = [json.loads(line)["body"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    spec = job_spec(tmp_path, engine={"service": "tests"})
    command = [sys.executable, "-m", "jobs", "run", str(spec)]
    receipts = tmp_path / "out/receipts"
    with subprocess.Popen(
        command, env={**service.env, **SERVE_ENVIRONMENT}, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: (receipts.exists() and any(receipts.iterdir())) or process.poll() is not None, "a unit")
        os.kill(service.replicas("text")[0], signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    with Engine.from_pretrained(CAUSAL, dtype="float32") as engine:
        expected = [output.text for output in engine.generate(bodies, SamplingParams(**GREEDY))]
    assert [row["text"] for row in rows_in(tmp_path / "out")] == expected
    wait_until(lambda: len(service.replicas("text")) == 2, "the replica to be replaced")
    assert 'millrace_engine_generated_tokens_total{model="text",priority="batch"}' in service.metrics


def test_a_job_of_another_model_is_refused(service: Service, tmp_path: Path) -> None:
    write_corpus(tmp_path / "rows.jsonl", 5)
    spec = job_spec(tmp_path, engine={"service": "tests"})
    spec.write_text(spec.read_text().replace("dtype: float32", "dtype: bfloat16"))
    found = run_job(service, spec)
    assert found.returncode == 2
    assert "does not serve the job's model" in found.stderr
    assert "dtype float32" in found.stderr


def test_a_job_of_a_service_that_nobody_started_is_refused(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is looked for on a cluster."""
    monkeypatch.setenv("HOME", service.env["HOME"])
    write_corpus(tmp_path / "rows.jsonl", 5)
    found = CliRunner().invoke(app, ["run", str(job_spec(tmp_path, engine={"service": "another"}))])
    assert found.exit_code == 2
    assert "no service 'another' was started from here" in found.stderr


def test_a_stream_whose_replica_dies_ends_with_an_error_and_the_others_go_on(service: Service) -> None:
    long: dict[str, Any] = {
        "model": "text",
        "stream": True,
        "max_tokens": 60,
        "temperature": 0.0,
        "extra_body": {"ignore_eos": True},
    }
    streams = [iter(service.client.completions.create(prompt=PROMPTS[n % 3], **long)) for n in range(12)]
    for stream in streams:
        next(stream)
    assert service.gauge("millrace_cache_used_ratio") > 0
    victims = service.replicas("text")
    os.kill(victims[0], signal.SIGKILL)
    ended: list[str] = []
    for stream in streams:
        try:
            for _ in stream:
                pass
            ended.append("whole")
        except openai.APIError as error:
            ended.append(str(error))
    assert "whole" in ended
    lost = [message for message in ended if message != "whole"]
    assert lost
    assert all("lost" in message for message in lost), lost
    wait_until(lambda: len(set(service.replicas("text")) - {victims[0]}) == 2, "another replica")
    wait_until(lambda: service.gauge("millrace_running_requests") == 0, "every request to be over")
    wait_until(lambda: service.gauge("millrace_cache_used_ratio") == 0, "all blocks to be free")


def test_a_model_over_two_shards_answers_alike_and_comes_back_when_it_loses_one(
    service: Service, expected: list[str]
) -> None:
    def answers() -> list[str]:
        found = service.client.completions.create(model="pair", prompt=PROMPTS, **GREEDY)
        return [choice.text for choice in found.choices]

    def is_back() -> bool:
        try:
            return answers() == expected and shards() != before
        except openai.APIError:
            return False

    def shards() -> list[int]:
        titles = ("ray::ShardActor", "ray::ServeReplica:tests:pair")
        return [process.pid for process in below(service.process.pid) if process.title.startswith(titles)]

    assert answers() == expected
    whole, split = (
        [vector.embedding for vector in service.client.embeddings.create(model=name, input=PROMPTS).data]
        for name in ("text", "pair")
    )
    np.testing.assert_allclose(split, whole, atol=1e-4)
    before = shards()
    assert len(before) == 2
    os.kill(next(p.pid for p in below(service.process.pid) if p.title.startswith("ray::ShardActor")), signal.SIGKILL)
    wait_until(is_back, "the replica to be replaced")
    wait_until(lambda: not set(shards()) & set(before), "the old replica to be gone")


def test_the_record_is_for_this_user_alone(service: Service) -> None:
    path = Path(service.env["HOME"]) / ".millrace/services/tests.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["url"] == service.url


def test_another_service_cannot_have_another_port_of_the_same_cluster(service: Service, tmp_path: Path) -> None:
    record = json.loads((Path(service.env["HOME"]) / ".millrace/services/tests.json").read_text())
    command = [
        sys.executable,
        "-m",
        "jobs",
        "serve",
        str(LABELS),
        "--set",
        f"http.port={free_port()}",
        "--address",
        record["cluster"],
    ]
    found = subprocess.run(
        command,
        env={**service.env, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert found.returncode == 2, found.stderr
    assert "listens on 127.0.0.1" in found.stderr


def test_no_half_sent_request_holds_a_connection_or_is_waited_for(
    service: Service, half_sent: list[socket.socket]
) -> None:
    """Through Ray Serve's proxy, whose server has none of these limits by itself."""
    with connection(service.url) as long:
        for path, status in (("/health", 200), ("/v1/completions", 401), ("/nothing", 401)):
            with connection(service.url) as found:
                found.sendall(head("GET" if path == "/health" else "POST", path, length=1 << 23) + b" " * 1000)
                assert status_of(until_closed(found)) == status
        long.sendall(head("POST", "/v1/completions", length=1 << 30, headers={"Authorization": f"Bearer {KEY}"}))
        assert status_of(until_closed(long)) == 413
    assert [until_closed(each) for each in half_sent] == [b"", b""]


def test_readiness_names_models_for_a_key_alone(service: Service) -> None:
    told = httpx.get(f"{service.url}/ready", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
    assert told.json()["models"] == ["text", "labels", "pair"]
    assert httpx.get(f"{service.url}/ready", timeout=30).json() == {"status": "ready", "models": None}


def test_prompts_and_answers_are_in_no_log(service: Service) -> None:
    service.client.completions.create(model="text", prompt="a-very-secret-word", **GREEDY)
    time.sleep(1)
    logs = [
        path
        for path in Path(service.env["RAY_TMPDIR"]).rglob("*")
        if path.is_file() and path.suffix in (".log", ".out", ".err")
    ]
    assert logs
    assert not [path for path in [*logs, service.log] if "a-very-secret-word" in path.read_text(errors="replace")]
