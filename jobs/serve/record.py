"""Where the services of this user are: a file a service in `~/.millrace/services`, for jobs that use its replicas."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.errors import UsageError
from pipelines.cluster.token import AUTH_MODE, TOKEN

FOLDER = Path("~/.millrace/services")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceRecord:
    """A running service: its name, the Ray cluster it is on and whether that asks for a token, the URL it answers at, and the process
    that watches over it."""

    name: str
    cluster: str
    has_token: bool
    url: str
    pid: int

    def write(self) -> Path:
        """Writes the record, for this user's eyes alone."""
        path = path_of(self.name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(asdict(self)).encode()
        unfinished = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        unfinished.replace(path)
        return path

    def remove(self) -> None:
        """Takes the record away, unless another service of the name has written its own since."""
        if read_record(self.name) == self:
            path_of(self.name).unlink(missing_ok=True)


def join_service(service: str) -> str:
    """The Ray cluster of a service of this user. If it asks for the token in the home folder, so does this process from now on, which must
    not have imported Ray yet.

    Raises:
        UsageError: there is no record of it, or it cannot be read.
    """
    record = read_record(service)
    if record is None:
        raise UsageError(
            f"no service {service!r} was started from here (there is no {path_of(service)}); start it with "
            "millrace serve, or name its Ray cluster with --address"
        )
    if record.has_token:
        os.environ.setdefault(AUTH_MODE, TOKEN)
    return record.cluster


def path_of(name: str) -> Path:
    """The file of the service of that name."""
    return FOLDER.expanduser() / f"{name}.json"


def read_record(name: str) -> ServiceRecord | None:
    """The record of a service; None if no service of that name is recorded.

    Raises:
        UsageError: its file cannot be read, or does not hold a record.
    """
    path = path_of(name)
    try:
        return ServiceRecord(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is not the record of a service ({error}); remove it, and start the service again"
        ) from error
