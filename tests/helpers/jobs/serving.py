"""`millrace serve` as people start it, in a process of its own on a Ray cluster of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from tests.helpers.free_port import free_port
from tests.helpers.pipelines.killing import below, wait_until
from tests.helpers.pipelines.running import short_folder

PATIENCE_S = 120.0
KEY = "a-key-of-this-test"


@dataclass(frozen=True)
class Service:
    """A service called `tests`: its process, its URL, the environment of whoever uses it from this machine, and what it said."""

    process: "subprocess.Popen[bytes]"
    url: str
    env: dict[str, str]
    log: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60)

    def replicas(self, model: str) -> list[int]:
        """The processes of a model's replicas."""
        title = f"ray::ServeReplica:tests:{model}"
        return [process.pid for process in below(self.process.pid) if process.title.startswith(title)]

    @property
    def metrics(self) -> str:
        """What `/metrics` says."""
        return httpx.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=30).text

    def gauge(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.metrics
        values = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
        assert values, f"no {name} in {text}"
        return sum(values)


@contextmanager
def started_service(folder: Path, models: Sequence[Mapping[str, Any]]) -> Iterator[Service]:
    """A service of these models, with its home in `folder`. It is interrupted at the end, and has to end as it should."""
    with running_service(folder, models) as service:
        yield service
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(PATIENCE_S) == 130, service.log.read_text()
        assert not (folder / ".millrace/services/tests.json").exists()


@contextmanager
def running_service(folder: Path, models: Sequence[Mapping[str, Any]]) -> Iterator[Service]:
    """The same, killed at the end with all that is below it, if it has not ended by then."""
    port = free_port()
    keys = folder / "keys.txt"
    keys.touch(mode=0o600)
    keys.write_text(f"another-key\n{KEY}\n")
    spec = {"name": "tests", "models": list(models), "http": {"port": port}, "api_keys": {"file": str(keys)}}
    (folder / "service.yaml").write_text(yaml.safe_dump(spec))
    log = folder / "log"
    with short_folder() as temp, log.open("w") as output:
        env = {**os.environ, "HOME": str(folder), "RAY_TMPDIR": str(temp)}
        env.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "jobs", "serve", str(folder / "service.yaml")]
        with subprocess.Popen(command, env=env, stdout=output, stderr=output) as process:
            found = Service(process=process, url=f"http://127.0.0.1:{port}", env=env, log=log)
            try:
                wait_until(lambda: "serving" in log.read_text() or process.poll() is not None, "the service")
                assert process.poll() is None, log.read_text()
                yield found
            finally:
                _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a service that has not ended, and to all below it: what stands still ends in no other way."""
    if process.poll() is not None:
        return
    for pid in [process.pid, *(one.pid for one in below(process.pid))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
