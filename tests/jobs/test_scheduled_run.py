"""The RayJob of a scheduled time, created over a real connection to a small Kubernetes API."""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from jobs.errors import UsageError
from jobs.scheduled_run import main, rayjob_at, scheduled_time
from tests.k8s.kubernetes_api import KubernetesApi, kubernetes_api

TIME = datetime(2026, 2, 26, 2, 0, tzinfo=UTC)
JOB_NAME = f"nightly-{int(TIME.timestamp()) // 60}"
TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "label", "labels": {"part-of": "millrace"}, "resourceVersion": "7", "finalizers": ["ray"]},
    "spec": {"suspend": True, "entrypoint": "python -m jobs run job.yaml\n", "backoffLimit": 3},
    "status": {"jobDeploymentStatus": "Suspended"},
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with kubernetes_api(tmp_path / "account") as running:
        running.rayjobs["label"] = TEMPLATE
        yield running


def start(api: KubernetesApi, *arguments: str, job_name: str = JOB_NAME, template: str = "label") -> int:
    return main(
        [
            *("--server", api.url, "--account", str(api.account)),
            *("--template", template, "--job-name", job_name, *arguments),
        ]
    )


def test_a_scheduled_time_makes_one_rayjob(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(api, "--set", "output.path=s3://bucket/out/{run_id}") == 0
    assert capsys.readouterr().out == "rayjob/label-20260226t0200z created\n"
    assert api.rayjobs["label-20260226t0200z"] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": "label-20260226t0200z",
            "labels": {"part-of": "millrace", "millrace-run": "20260226t0200z"},
        },
        "spec": {
            "entrypoint": "python -m jobs run job.yaml --set output.path=s3://bucket/out/20260226t0200z",
            "backoffLimit": 3,
        },
    }


def test_a_second_attempt_leaves_the_rayjob_alone(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    start(api)
    api.rayjobs["label-20260226t0200z"]["status"] = {"jobStatus": "RUNNING"}
    assert start(api, "--set", "seed=1") == 0
    assert capsys.readouterr().out.splitlines()[1] == "rayjob/label-20260226t0200z is there already"
    assert api.rayjobs["label-20260226t0200z"]["status"] == {"jobStatus": "RUNNING"}


def test_it_reads_the_template_and_creates_and_asks_for_nothing_else(api: KubernetesApi) -> None:
    start(api)
    rayjobs = "/apis/ray.io/v1/namespaces/millrace/rayjobs"
    assert api.requests == [("GET", f"{rayjobs}/label"), ("POST", f"{rayjobs}?fieldValidation=Strict")]


def test_a_missing_template_is_told(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(api, template="other") == 1
    assert '404 rayjobs.ray.io "other" not found' in capsys.readouterr().err


def test_a_refusal_is_told(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.may_create = False
    assert start(api) == 1
    assert "403 rayjobs.ray.io is forbidden" in capsys.readouterr().err


def test_a_wrong_token_is_told(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    (api.account / "token").write_text("stale")
    assert start(api) == 1
    assert "401 Unauthorized" in capsys.readouterr().err


def test_a_server_of_another_authority_gets_no_token(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    trustme.CA().cert_pem.write_to_path(str(api.account / "ca.crt"))
    assert start(api) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err
    assert api.requests == []


def test_a_proxy_of_the_environment_is_not_used(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert start(api) == 0


def test_a_pod_without_an_account_is_told(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    (api.account / "token").unlink()
    assert start(api) == 1
    assert "automountServiceAccountToken" in capsys.readouterr().err


@pytest.mark.parametrize("job_name", ["nightly", "nightly-1", "29534520", "nightly-x29534520", "$(JOB_NAME)"])
def test_a_job_without_a_scheduled_time_is_refused(api: KubernetesApi, job_name: str) -> None:
    assert start(api, job_name=job_name) == 2
    assert api.requests == []


def test_the_scheduled_time_is_what_kubernetes_puts_into_the_name() -> None:
    assert scheduled_time("nightly-at-2-29534520") == datetime(2026, 2, 26, 2, 0, tzinfo=UTC)


def test_values_reach_the_command_as_they_were_given() -> None:
    overrides = ['input.paths=["s3://bucket/{date}/*.parquet"]', "engine.replicas={min: 1}", "name=it's $HOME"]
    words = shlex.split(rayjob_at(TEMPLATE, TIME, overrides)["spec"]["entrypoint"])
    assert words[5:] == [
        *("--set", 'input.paths=["s3://bucket/2026-02-26/*.parquet"]'),
        *("--set", "engine.replicas={min: 1}"),
        *("--set", "name=it's $HOME"),
    ]


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        rayjob_at(TEMPLATE, TIME, ["seed"])


def test_a_name_that_kuberay_would_refuse_is_refused() -> None:
    long = {**TEMPLATE, "metadata": {"name": "l" * 33}}
    with pytest.raises(UsageError, match="48 letters, at most 47"):
        rayjob_at(long, TIME, [])
