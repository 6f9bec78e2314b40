"""`python -m jobs.scheduled_run`: the RayJob of one scheduled time, made from a suspended template through the Kubernetes API.

A CronJob starts it. Kubernetes ends the name of a CronJob's Job in its scheduled time, in minutes since 1970, so every attempt at one
scheduled time makes the same name and the same output path; a RayJob that is there already is left alone. Of a RayJob it
knows the name, the entrypoint and `suspend`.
"""

import argparse
import datetime as dt
import json
import re
import shlex
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import UsageError
from jobs.show.terminal import escape_standard_streams

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "https://kubernetes.default.svc"
TIMEOUT_S = 30.0
MAX_NAME = 47  # KubeRay appends to the name of a RayJob and refuses longer ones


class KubernetesError(Exception):
    """The Kubernetes API could not be reached, or said no."""


class AlreadyExistsError(KubernetesError):
    """An object of this name is there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 the RayJob is there, 1 the Kubernetes API refused or could not be reached, 2 an argument is wrong."""
    parser = argparse.ArgumentParser(prog="python -m jobs.scheduled_run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--template", required=True, metavar="NAME", help="the suspended RayJob to copy")
    parser.add_argument("--job-name", required=True, metavar="NAME", help="the Job of the CronJob: ends in -MINUTES")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY.KEY=VALUE",
        help="passed on to `millrace run`; {run_id} and {date} stand for the scheduled time, in UTC",
    )
    parser.add_argument("--server", default=SERVER, metavar="URL", help="the Kubernetes API (%(default)s)")
    parser.add_argument(
        "--account",
        type=Path,
        default=ACCOUNT,
        metavar="DIR",
        help="token, ca.crt and namespace of the service account (%(default)s)",
    )
    given = parser.parse_args(arguments)
    escape_standard_streams()
    try:
        time = scheduled_time(given.job_name)
        kubernetes = Kubernetes.of_account(given.server, given.account)
        said = create_run(kubernetes, given.template, time, given.overrides)
    except UsageError as error:
        sys.stderr.write(f"scheduled_run: {error}\n")
        return 2
    except KubernetesError as error:
        sys.stderr.write(f"scheduled_run: {error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


def scheduled_time(job_name: str) -> dt.datetime:
    """The time that a CronJob's Job was scheduled for, in UTC.

    Raises:
        UsageError: the name does not end in minutes since 1970.
    """
    found = re.search(r"-(\d{8,9})$", job_name)
    if found is None:
        raise UsageError(
            f"--job-name was {job_name!r}; it must be what a CronJob names its Jobs: NAME-MINUTES, minutes since 1970"
        )
    return dt.datetime.fromtimestamp(int(found[1]) * 60, dt.UTC)


def create_run(kubernetes: "Kubernetes", template: str, time: dt.datetime, overrides: Sequence[str]) -> str:
    """Creates the RayJob of this time, unless it is there, and says which of the two.

    Raises:
        UsageError: the name would be too long, or an override is not KEY=VALUE.
        KubernetesError: the template cannot be read, or the RayJob cannot be created.
    """
    run = rayjob_at(kubernetes.get(template), time, overrides)
    name = run["metadata"]["name"]
    try:
        kubernetes.create(run)
    except AlreadyExistsError:
        return f"rayjob/{name} is there already"
    return f"rayjob/{name} created"


def rayjob_at(template: Mapping[str, Any], time: dt.datetime, overrides: Sequence[str]) -> dict[str, Any]:
    """The template as the RayJob of this time: named after it, not suspended, with the overrides after its entrypoint."""
    run_id = f"{time:%Y%m%dt%H%Mz}"
    name = f"{template['metadata']['name']}-{run_id}"
    if len(name) > MAX_NAME:
        raise UsageError(
            f"the RayJob would be called {name}: {len(name)} letters, at most {MAX_NAME}; name the template shorter"
        )
    words = [template["spec"]["entrypoint"].strip()]
    for override in overrides:
        if not re.match(r"[^=]+=", override):
            raise UsageError(f"--set was {override!r}; it must be KEY.KEY=VALUE")
        filled = override.replace("{run_id}", run_id).replace("{date}", f"{time:%Y-%m-%d}")
        words += ["--set", shlex.quote(filled)]
    spec = {key: value for key, value in template["spec"].items() if key != "suspend"}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"name": name, "labels": {**template["metadata"].get("labels", {}), "millrace-run": run_id}},
        "spec": {**spec, "entrypoint": " ".join(words)},
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Kubernetes:
    """RayJobs of one namespace, over the REST API, as a service account."""

    rayjobs_url: str
    token: str
    opener: urllib.request.OpenerDirector

    @classmethod
    def of_account(cls, server: str, account: Path) -> "Kubernetes":
        """With the token, the authority and the namespace that Kubernetes mounts into a pod.

        Raises:
            KubernetesError: they cannot be read.
        """
        try:
            namespace = (account / "namespace").read_text().strip()
            token = (account / "token").read_text().strip()
            authority = ssl.create_default_context(cafile=account / "ca.crt")
        except OSError as error:  # ssl.SSLError is one
            raise KubernetesError(
                f"{account}: no service account is mounted here ({error}); the pod needs automountServiceAccountToken: true"
            ) from error
        return cls(
            rayjobs_url=f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs",
            token=token,
            # without a proxy, whatever the environment says: the API server is inside
            opener=urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=authority)
            ),
        )

    def get(self, name: str) -> dict[str, Any]:
        return self._ask(f"{self.rayjobs_url}/{name}", None)

    def create(self, rayjob: Mapping[str, Any]) -> dict[str, Any]:
        """Raises:
        AlreadyExistsError: the name is taken.
        """
        return self._ask(f"{self.rayjobs_url}?fieldValidation=Strict", json.dumps(rayjob).encode())

    def _ask(self, url: str, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(
            url,
            data=body,
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.token}",
            },
        )
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise _refusal(request, error) from error
        except (OSError, ValueError) as error:  # no connection, or no JSON
            raise KubernetesError(f"{request.get_method()} {url}: {error}") from error
        return found


def _refusal(request: urllib.request.Request, error: urllib.error.HTTPError) -> KubernetesError:
    """What the API said in its Status object, if it sent one."""
    try:
        status = json.load(error)
        reason, message = status["reason"], status["message"]
    except (OSError, ValueError, KeyError, TypeError):
        reason, message = "", error.reason
    kind = AlreadyExistsError if reason == "AlreadyExists" else KubernetesError
    return kind(f"{request.get_method()} {request.full_url}: {error.code} {message}")


if __name__ == "__main__":
    sys.exit(main())
