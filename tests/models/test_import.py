"""What importing costs and brings in, in a process of its own."""

import json
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = """
import json, sys, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "modules": sorted({{name.split(".")[0] for name in sys.modules}})}}))
"""
FORBIDDEN = {"ray", "pyarrow", "transformers", "fastapi", "pydantic", "pandas", "matplotlib"}


def imported(statement: str) -> tuple[float, set[str]]:
    """Seconds, and the packages that are loaded afterwards."""
    command = [sys.executable, "-c", REPORT.format(statement=statement)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    report = json.loads(found.stdout)
    return report["seconds"], set(report["modules"])


def test_importing_models_is_quick_and_loads_no_cluster_no_tables_and_no_other_networks() -> None:
    seconds, packages = imported("import models")
    assert seconds < 3
    assert not FORBIDDEN & packages


@pytest.mark.parametrize(
    "module",
    ["models", "models.engine.scheduling.request", "models.engine.scheduling.scheduler", "models.engine.options"],
)
def test_what_is_asked_and_planned_needs_no_torch(module: str) -> None:
    assert "torch" not in imported(f"import {module}")[1]


def test_the_driver_of_a_run_and_its_report_need_no_torch() -> None:
    """It costs seconds, and hundreds of megabytes beside what a run keeps."""
    assert "torch" not in imported("import jobs.spec.preflight, jobs.report.report, pipelines.run")[1]


def test_the_engine_and_the_scorer_load_nothing_that_only_others_need() -> None:
    statement = "from models import AsyncEngine, Engine, ModelError, Output, SamplingParams, Scorer"
    _, packages = imported(statement)
    assert "torch" in packages
    assert not FORBIDDEN & packages


def test_a_name_that_models_does_not_have_is_an_attribute_error() -> None:
    import models

    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        _ = models.Motor


def test_every_package_is_installed() -> None:
    """Packages that lack one make an image that fails when it is first used."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    files = [file for top in ("models", "actors", "pipelines", "jobs") for file in (ROOT / top).rglob("*.py")]
    for folder in {file.parent for file in files}:
        assert (folder / "__init__.py").exists(), f"setuptools finds no package in {folder}"
        name = ".".join(folder.relative_to(ROOT).parts)
        assert any(fnmatch(name, pattern) for pattern in settings["include"]), name
