"""The commands and import paths of the manifests, run as the manifests give them.

What Kubernetes supplies stands beside: mounted files lie in a temporary folder whose path takes the mount's place in the command, the
object store is an S3 server on this machine, and `$(NAME)` and `python` are resolved as a container would.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import s3fs
import yaml

from tests.helpers.pipelines.running import short_folder
from tests.k8s.kubernetes_api import KubernetesApi, kubernetes_api
from tests.k8s.kustomize import BASE, FOLDERS, OVERLAYS, ROOT, Manifest, build

SCHEDULED_JOB = "millrace-scheduled-29534520"  # as Kubernetes names it at 2026-02-26 02:00 UTC
RUN_ID = "20260226t0200z"
IGNORE_SERVE = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`"
)  # ray.serve.schema, when imported
OF_RAY = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
TICKETS = [{"ticket_id": f"T-{number}", "body": "A refund, please"} for number in range(12)]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with kubernetes_api(tmp_path / "account") as running:
        yield running


@pytest.fixture
def bucket(
    s3_options: dict[str, Any], tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> s3fs.S3FileSystem:
    """`s3://example-bucket` with the model and the tickets of the manifests, its credentials where millrace-storage puts them."""
    system = s3fs.S3FileSystem(**s3_options, skip_instance_cache=True)
    if not system.exists("example-bucket"):
        system.call_s3("create_bucket", Bucket="example-bucket")
    for file in tiny_checkpoint(max_position_embeddings=512).iterdir():
        system.pipe_file(f"example-bucket/models/qwen3-4b/{file.name}", file.read_bytes())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_options["secret"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3_options["client_kwargs"]["region_name"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_options["client_kwargs"]["endpoint_url"])
    return system


def create_run(folder: Path, api: KubernetesApi) -> Manifest:
    """The RayJob that the CronJob's container creates from the template."""
    manifests = {each["kind"]: each for each in build(folder)}
    api.rayjobs["millrace-job"] = manifests["RayJob"]
    container = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    (variable,) = container["env"]
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    words = [word.replace(f"$({variable['name']})", SCHEDULED_JOB) for word in container["command"] + container["args"]]
    created = shell_free([*words, f"--server={api.url}", f"--account={api.account}"])
    assert created.returncode == 0, created.stderr
    return api.rayjobs[f"millrace-job-{RUN_ID}"]


def shell_free(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, env=container_env(), cwd=ROOT)


def container_env(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """`python` is the one that runs the tests, as it is the project's in the image."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        **(more or {}),
    }


def mounted(manifests: list[Manifest], folder: Path) -> Path:
    """The ConfigMap millrace-job as files, which is what /etc/millrace/job holds."""
    (job,) = (each for each in manifests if each["kind"] == "ConfigMap")
    folder.mkdir()
    for name, content in job["data"].items():
        (folder / name).write_text(content)
    return folder


def run_entrypoint(entrypoint: str, replaced: Mapping[str, Path], more: Mapping[str, str] | None = None) -> None:
    """As Ray runs it: one line for the shell."""
    for place, path in replaced.items():
        entrypoint = entrypoint.replace(place, str(path))
    with short_folder() as temp:
        done = subprocess.run(
            ["/bin/sh", "-c", entrypoint],
            capture_output=True,
            text=True,
            check=False,
            cwd=temp,
            env=container_env({"RAY_TMPDIR": str(temp), "HOME": str(temp), **(more or {})}),
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", [BASE, *sorted(OVERLAYS.iterdir())], ids=lambda folder: folder.name)
def test_the_cronjob_creates_a_run_that_is_not_suspended(folder: Path, api: KubernetesApi) -> None:
    run = create_run(folder, api)
    template = next(each for each in build(folder) if each["kind"] == "RayJob")
    assert "suspend" not in run["spec"]
    assert run["spec"]["rayClusterSpec"] == template["spec"]["rayClusterSpec"]
    assert run["spec"]["entrypoint"].startswith(template["spec"]["entrypoint"])
    assert f"/{RUN_ID}" in run["spec"]["entrypoint"]


@pytest.mark.cluster("own")
def test_a_scheduled_run_labels_the_day_s_tickets(
    api: KubernetesApi, bucket: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    """End to end: CronJob's command, the RayJob it creates, its entrypoint, its rows; the template's own spec, unchanged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with bucket.open("example-bucket/tickets/2026-02-26/part.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(TICKETS), file)
    run = create_run(OVERLAYS / "scheduled", api)
    files = mounted(build(OVERLAYS / "scheduled"), tmp_path / "job")
    smaller = "--set engine.replicas=1 --set engine.num_cpus=1"  # this machine is no cluster
    run_entrypoint(f"{run['spec']['entrypoint']} {smaller}", {"/etc/millrace/job": files})
    out = f"example-bucket/labelled/tickets/{RUN_ID}"
    (part,) = bucket.ls(f"{out}/data")
    with bucket.open(part) as file:
        rows = pq.read_table(file).to_pylist()
    assert [row["ticket_id"] for row in rows] == [ticket["ticket_id"] for ticket in TICKETS]
    assert {row["label"] for row in rows} <= {"billing", "shipping", "returns"}


@pytest.mark.faults
@pytest.mark.cluster
@OF_RAY
def test_the_local_run_labels_the_tickets_it_brings(api: KubernetesApi, tmp_path: Path) -> None:
    """The other overlay whose run needs nothing that is not here."""
    run = create_run(OVERLAYS / "local", api)
    files = mounted(build(OVERLAYS / "local"), tmp_path / "job")
    spec = files / "job-spec.yaml"
    demo = ROOT / "jobs/demo/checkpoints"  # what the Dockerfile copies
    spec.write_text(spec.read_text().replace("/opt/millrace/demo", str(demo)).replace("/etc/millrace/job", str(files)))
    run_entrypoint(
        run["spec"]["entrypoint"],
        {"/etc/millrace/job": files, "/output": tmp_path / "output"},
        {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "HOME": str(Path.home())},  # as Ray gives an entrypoint
    )
    rows = pq_rows(tmp_path / f"output/{RUN_ID}/data")
    assert [row["ticket_id"] for row in rows] == [
        json.loads(line)["ticket_id"] for line in (files / "tickets.jsonl").read_text().splitlines()
    ]


def pq_rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for part in sorted(folder.iterdir()) for row in pq.read_table(part).to_pylist()]


def test_a_raycronjob_names_its_output_after_the_rayjob(tmp_path: Path) -> None:
    """The shell of the head container fills in the cluster's name, without what changes when the cluster is replaced."""
    (schedule,) = (each for each in build(ROOT / "k8s/options/raycronjob") if each["kind"] == "RayCronJob")
    entrypoint = schedule["spec"]["jobTemplate"]["entrypoint"]
    for cluster in ("millrace-scheduled-x7k9q-4wrtz", "millrace-scheduled-x7k9q-9bb2c"):
        filled = subprocess.run(
            ["/bin/sh"],
            input=f"printf '%s\\n' {entrypoint}",
            env={"RAY_CLUSTER_NAME": cluster},
            capture_output=True,
            text=True,
            check=True,
        )
        assert filled.stdout.splitlines()[-1] == (
            "output.path=s3://example-bucket/labelled/tickets/millrace-scheduled-x7k9q"
        )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_job_specs_are_valid(folder: Path, tmp_path: Path) -> None:
    from jobs.spec.job import load_spec

    load_spec(mounted(build(folder), tmp_path / "job") / "job-spec.yaml")


@IGNORE_SERVE
@pytest.mark.parametrize("folder", [BASE, OVERLAYS / "gpu", OVERLAYS / "local"], ids=lambda folder: folder.name)
def test_serve_reads_the_service_s_configuration(folder: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(serve_config(folder))
    (application,) = config.applications
    assert application.import_path == "jobs.serve.app:build"
    assert application.args["spec"]["http"] == {"host": config.http_options.host, "port": config.http_options.port}


@pytest.mark.cluster
@OF_RAY
@IGNORE_SERVE
@pytest.mark.parametrize("folder", [BASE, OVERLAYS / "gpu", OVERLAYS / "local"], ids=lambda folder: folder.name)
def test_the_service_s_application_is_built(folder: Path, bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    """Serve builds an application in a process of its cluster."""
    from ray._common.utils import import_attr
    from ray.serve import Application
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n")
    keys.chmod(0o440)  # as the Secret's volume gives it: the group may read
    text = yaml.safe_dump(serve_config(folder)["applications"][0])
    for place, path in {
        "/etc/millrace/keys/keys.txt": keys,
        "/opt/millrace/demo": ROOT / "jobs/demo/checkpoints",
    }.items():
        text = text.replace(place, str(path))
    application = yaml.safe_load(text)
    built = call_user_app_builder_with_args_if_necessary(import_attr(application["import_path"]), application["args"])
    assert isinstance(built, Application)


def serve_config(folder: Path) -> dict[str, Any]:
    (service,) = (each for each in build(folder) if each["kind"] == "RayService")
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config
