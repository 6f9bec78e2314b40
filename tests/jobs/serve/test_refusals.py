"""Services that may not be: `millrace serve` says so before it starts anything."""

import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import RayTaskError
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.demo import CHECKPOINTS
from jobs.serve.environment import SERVE_ENVIRONMENT
from tests.helpers.free_port import free_port

LABELS = CHECKPOINTS / "sequence-classification"
CANNOT_LISTEN = "cannot listen on 127.0.0.1:{port}"

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`"
)  # ray.serve.schema, when imported


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets ends with the test; there is no cluster for it."""
    for name, value in SERVE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refused(*arguments: str | Path) -> Result:
    """What the command says, which ends with 2."""
    result = CliRunner().invoke(app, ["serve", *map(str, arguments)])
    assert result.exit_code == 2, result.stderr
    return result


@pytest.mark.parametrize(
    ("keys", "override", "said"),
    [
        (None, "http.host=0.0.0.0", "without keys only a loopback address may be listened on"),
        (0o644, "http.port=8000", "others can read or write it; make it 0600"),
        (0o600, "http.port=70000", "http.port: was 70000; it must be a port from 1 to 65535"),
    ],
)
def test_who_may_ask_and_where(tmp_path: Path, keys: int | None, override: str, said: str) -> None:
    spec: dict[str, Any] = {"name": "refused", "models": [{"name": "m", "path": str(LABELS)}]}
    if keys is not None:
        file = tmp_path / "keys.txt"
        file.write_text("key\n")
        file.chmod(keys)
        spec["api_keys"] = {"file": str(file)}
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(spec))
    assert said in refused(path, "--set", override).stderr


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "nothing", "--set", f"http.port={free_port()}").stderr


def test_a_port_that_another_program_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert CANNOT_LISTEN.format(port=port) in refused(LABELS, "--set", f"http.port={port}").stderr


@pytest.mark.parametrize("was_running", [False, True])
def test_a_port_that_another_program_has_on_the_head_of_a_cluster(
    monkeypatch: pytest.MonkeyPatch, was_running: bool
) -> None:
    """Ray Serve finds out, in an actor there. One that was there before stays."""
    from contextlib import nullcontext

    import jobs.serve.service

    def start(**_: object) -> None:
        raise RayTaskError("ready", "a traceback", RuntimeError("Failed to bind"))  # type: ignore[no-untyped-call]

    monkeypatch.setattr(jobs.serve.service, "joined", lambda *_, **__: nullcontext())
    monkeypatch.setattr(jobs.serve.service, "application", lambda _: None)
    monkeypatch.setattr("ray.serve.start", start)
    ended: list[bool] = []
    monkeypatch.setattr("ray.serve.shutdown", lambda: ended.append(True))
    monkeypatch.setattr(jobs.serve.service, "serve_http_options", lambda: object() if was_running else None)
    port = free_port()
    said = refused(LABELS, "--set", f"http.port={port}", "--address", "127.0.0.1:6379").stderr
    assert CANNOT_LISTEN.format(port=port) + " (Failed to bind)" in said
    assert bool(ended) != was_running
