"""What keeps the loops of CONTRIBUTING.md what they are: nothing that `make quick` runs starts Ray, and what takes long is said."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cluster_guard import STARTS_A_CLUSTER, command_line
from tests.helpers.durations import over
from tests.helpers.matrix import first_of_each, first_quick

ROOT = Path(__file__).parents[1]
CONFTEST = """\
from tests.helpers.cluster_guard import ClusterGuard

def pytest_configure(config):
    config.addinivalue_line("markers", "cluster")
    config.pluginmanager.register(ClusterGuard())
"""
TESTS = """\
import subprocess
import pytest

def run(*words):
    return subprocess.run(["true", *words], check=True)

def test_runs_a_job():
    run("-m", "jobs", "run", "spec.yaml")

def test_swallows_the_refusal():
    try:
        run("-m", "jobs", "serve", "model")
    except BaseException:
        pass

def test_starts_ray():
    import ray
    ray.init(address="local", num_cpus=1, include_dashboard=False)

def test_plans_a_job():
    run("-m", "jobs", "plan", "spec.yaml")

@pytest.mark.cluster("own")
def test_is_marked():
    run("-m", "jobs", "run", "spec.yaml")
"""


def test_a_test_without_the_marker_starts_no_cluster_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-q", "-p", "no:cacheprovider", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    outcomes = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))]
    assert sorted(outcomes) == [
        "FAILED test_it.py::test_runs_a_job",
        "FAILED test_it.py::test_starts_ray",
        "FAILED test_it.py::test_swallows_the_refusal",
        "PASSED test_it.py::test_is_marked",
        "PASSED test_it.py::test_plans_a_job",
    ], done.stdout
    assert "test_it.py::test_runs_a_job starts a process (-m jobs run)" in done.stdout
    assert "test_it.py::test_starts_ray starts a process (gcs_server)" in done.stdout
    assert 'pytest.mark.cluster("own") for one that starts what it needs itself' in done.stdout


@pytest.mark.parametrize(
    ("command", "starts"),
    [
        (["/opt/ray/core/src/ray/gcs/gcs_server", "--log_dir=x"], True),
        ([b"ray", b"start", b"--head"], True),
        ("exec ray start --head", True),
        ([Path("/venv/bin/millrace"), "run", "spec.yaml"], True),
        (["python", "-c", "import ray; ray.init()"], True),
        (["millrace", "plan", "spec.yaml"], False),
        (["python", "-m", "jobs", "--version"], False),
        (["python", "-m", "jobs.scheduled_run"], False),
    ],
)
def test_a_command_that_may_start_ray_is_known(command: list[str] | str, starts: bool) -> None:
    assert (STARTS_A_CLUSTER.search(command_line(command)) is not None) == starts


def test_what_is_over_a_ceiling_is_said_the_longest_first() -> None:
    found = over({"a": 5.0, "b": 21.0, "c": 60.0, "d": 20.0}, 20.0, "test", "tests")
    assert found == ["2 tests over 20 s: 81 of 106 s", "    60.0 s  c", "    21.0 s  b"]
    assert over({"a": 5.0}, 20.0, "test", "tests") == []
    assert over({}, 20.0, "test", "tests") == []


def test_of_a_matrix_the_first_case_of_each_kind_is_quick() -> None:
    cases = first_of_each([("a", 1), ("a", 2), ("b", 1), ("b", 3)], kind=lambda case: case[0])
    assert [case for case in cases if isinstance(case, tuple) and not hasattr(case, "marks")] == [("a", 1), ("b", 1)]
    slow = [case for case in cases if hasattr(case, "marks")]
    assert [(case.values, [mark.name for mark in case.marks]) for case in slow] == [
        (("a", 2), ["slow"]),
        (("b", 3), ["slow"]),
    ]


def test_of_an_axis_the_first_case_is_quick() -> None:
    quick, *others = first_quick([2, 4, 8])
    assert (quick, [case.values for case in others]) == (2, [(4,), (8,)])


def test_what_asks_for_the_server_has_its_marker(s3_options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    assert s3_options["client_kwargs"]["endpoint_url"].startswith("http://127.0.0.1:")
    assert request.node.get_closest_marker("service") is not None
