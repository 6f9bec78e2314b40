"""A job spec handed to a Ray cluster that runs somewhere else, through its job API.

    submit(Submission(...), address="http://127.0.0.1:8265", say=print) -> the job's exit status

The cluster's machines have Millrace installed; only the spec travels. It is checked here first, as far as that needs neither model nor
input. It travels as a file of the job's working folder, which is in none of the cluster's lists (the command and the environment of a job
are), but on its machines other users may read it: secrets in it are named in a warning.
Where the cluster asks for a token, Ray's client takes it from RAY_AUTH_TOKEN (with RAY_AUTH_MODE=token) or from the home folder.
"""

import asyncio
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from jobs.errors import FailedError, UsageError
from jobs.spec.cascade import is_cascade
from jobs.spec.document.secrets import secret_keys
from jobs.spec.fields import absolute
from jobs.spec.job import load_spec
from models.checkpoint.place import is_local

SPEC_FILE = "spec.yaml"
POLL_S = 0.5
END_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A job as it is handed over: the whole spec, overrides applied, its relative paths anchored here; and `run`'s `--limit`."""

    name: str
    spec: dict[str, Any]
    limit: int | None

    @classmethod
    def of(cls, path: Path, *, overrides: Sequence[str] = (), limit: int | None = None) -> "Submission":
        """Raises:
        SpecError: with every problem found, one per line.
        """
        loaded = load_spec(path, overrides=overrides, limit=limit)
        return cls(name=loaded.job.name, spec=_anchored(loaded.values), limit=limit)

    def to_yaml(self) -> str:
        """The spec as a file; mappings keep their order, which a chat template can show."""
        return yaml.safe_dump(self.spec, allow_unicode=True, sort_keys=False)

    @property
    def entrypoint(self) -> str:
        """The command on the cluster, in a folder that holds the spec."""
        command = ["python", "-m", "jobs", "run", SPEC_FILE, "--address", "auto"]
        return shlex.join(command if self.limit is None else [*command, "--limit", str(self.limit)])


def submit(submission: Submission, *, address: str, say: Callable[[str], None], follows: bool = True) -> int:
    """Starts a job on the cluster whose dashboard is at `address`, and says its log as it comes. Returns the job's exit status, or 0
    at once unless it `follows` the job. Leaving early leaves the job running.

    Raises:
        UsageError: `address` is not an http or https URL.
        FailedError: the cluster refuses, or is not there.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise UsageError(
            f"--address was {address!r}; it must be the URL of the cluster's dashboard, such as http://127.0.0.1:8265"
        )
    if secrets := secret_keys(submission.spec):
        say(f"millrace: {_warning_of(secrets)}\n")
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            (Path(folder) / SPEC_FILE).write_text(submission.to_yaml(), encoding="utf-8")
            job = client.submit_job(
                entrypoint=submission.entrypoint,
                runtime_env={"working_dir": folder},
                metadata={"name": submission.name},
            )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise FailedError(f"the job API at {address} did not take the job: {error}") from error
    say(f"millrace: submitted as {job}\n")
    if not follows:
        return 0
    try:
        asyncio.run(_follow(client, job, say))
        return _exit_status(client, job)
    except KeyboardInterrupt:
        say(
            f"millrace: the job goes on; `ray job logs --address {address} --follow {job}` follows it, `ray job stop` ends it\n"
        )
        raise
    except (ConnectionError, RayError, RuntimeError) as error:
        raise FailedError(f"the job API at {address} was lost while {job} was running: {error}") from error


def _warning_of(secrets: Sequence[str]) -> str:
    return (
        f"{', '.join(secrets)}: the spec goes to the cluster's machines with these secrets in it, where others may read it; better give "
        "them to the cluster in its environment (AWS_ACCESS_KEY_ID, ...) or as a role of its machines, and leave them out"
    )


async def _follow(client: Any, job: str, say: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        say(lines)


def _exit_status(client: Any, job: str) -> int:
    """The status of a job whose log has ended, which may be known a moment later."""
    end = time.monotonic() + END_S
    while True:
        info = client.get_job_info(job)
        if info.status.is_terminal():
            break
        if time.monotonic() > end:
            raise FailedError(f"the log of {job} has ended, but it is {info.status}")
        time.sleep(POLL_S)
    if info.driver_exit_code is None:
        raise FailedError(f"{job} has {info.status} without an exit status: {info.message}")
    return int(info.driver_exit_code)


def _anchored(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Relative paths start from the current directory, as in `millrace run`; on the cluster that is another one."""
    return {
        **spec,
        **_anchored_models(spec),
        "input": {**spec["input"], "paths": [absolute(path) for path in spec["input"]["paths"]]},
        "output": {**spec["output"], "path": absolute(spec["output"]["path"])},
    }


def _anchored_models(spec: Mapping[str, Any]) -> dict[str, Any]:
    if not is_cascade(spec):
        return {"model": _anchored_model(spec["model"])}
    return {"cascade": [{**step, "model": _anchored_model(step["model"])} for step in spec["cascade"]]}


def _anchored_model(model: Any) -> Any:
    """A step of a cascade may have a path in the place of a mapping."""
    return _checkpoint(model) if isinstance(model, str) else {**model, "path": _checkpoint(model["path"])}


def _checkpoint(path: str) -> str:
    return absolute(path) if is_local(path) else path
