"""`check` and `report` of an output in a bucket: how they find its storage options, and what they say of options that are none."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from jobs.cli import app
from pipelines.io.open_output import open_store
from pipelines.tasks.classify import ClassifyTask
from tests.jobs.report.test_report import Made, make_run


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def made(tmp_path: Path, s3_options: dict[str, Any]) -> Made:
    """A run in a bucket whose third unit could not be read."""
    out = f"s3://bucket/{tmp_path.name}/out"
    return make_run(tmp_path, ClassifyTask(text="{{ body }}"), out=out, options=s3_options)


@pytest.fixture
def spec(made: Made, tmp_path: Path, s3_options: dict[str, Any]) -> Path:
    path = tmp_path / "spec.yaml"
    values = {
        "name": "label-tickets",
        "model": {"path": str(tmp_path / "model")},
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": list(made.job.input.paths)},
        "output": {"path": "s3://bucket/another", "storage_options": s3_options},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def given(options: dict[str, Any]) -> list[str]:
    endpoint = options["client_kwargs"]["endpoint_url"]
    pairs = ("key=k", "secret=s", f"client_kwargs.endpoint_url={endpoint}", "client_kwargs.region_name=us-east-1")
    return [argument for pair in pairs for argument in ("--storage-option", pair)]


@pytest.mark.parametrize("way", ["spec", "options"])
def test_check_and_report_of_a_bucket_find_its_options(
    made: Made, spec: Path, way: str, s3_options: dict[str, Any]
) -> None:
    how: Sequence[str | Path] = ["--spec", spec] if way == "spec" else given(s3_options)
    checked = invoke("check", made.output.path, *how)
    assert (checked.exit_code, checked.stderr) == (1, "")
    flaws = ["unit 2: not committed: it has no receipt", "unit 2: could not be read: the disk is gone"]
    assert checked.stdout.splitlines() == flaws
    reported = invoke("report", made.output.path, *how)
    assert (reported.exit_code, reported.stdout) == (0, f"{made.output.path}/report.html\n")
    assert json.loads(open_store(made.output).read("report.json") or b"")["units_done"] == 2


def test_an_option_goes_before_the_specs(made: Made, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.io.s3._FIRST_WAIT_S", 0.001)
    nobody = ["client_kwargs.endpoint_url=http://127.0.0.1:1", "config_kwargs.retries.max_attempts=0"]
    options = [argument for option in nobody for argument in ("--storage-option", option)]
    result = invoke("check", made.output.path, "--spec", spec, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("millrace: cannot read s3://")


def test_a_bucket_is_repaired_with_its_options(made: Made, spec: Path) -> None:
    store = open_store(made.output)
    store.write("receipts/part-00000001.json", b"cut")
    result = invoke("check", made.output.path, "--spec", spec, "--repair")
    assert result.exit_code == 1
    assert "unit 1: not committed: receipts/part-00000001.json is damaged" in result.stdout
    assert "removed receipts/part-00000001.json" in result.stdout
    assert store.read("receipts/part-00000001.json") is None


@pytest.mark.parametrize("option", ["secret", "=hush", "a..b=hush", "key={"])
def test_an_option_that_is_none_is_refused_without_showing_it(option: str) -> None:
    result = invoke("check", "s3://bucket/out", "--storage-option", option)
    assert result.exit_code == 2
    assert "an option is written KEY.KEY=VALUE, such as client_kwargs.endpoint_url=" in result.stderr
    assert "hush" not in result.stderr


def test_options_for_a_folder_are_refused(tmp_path: Path) -> None:
    result = invoke("report", tmp_path, "--storage-option", "key=k")
    assert result.exit_code == 2
    assert "is a folder of this machine, whose storage has no options" in result.stderr


def test_a_wrong_spec_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("name: j\nmodle: {path: m}\n")
    result = invoke("check", "s3://bucket/out", "--spec", tmp_path / "spec.yaml")
    assert result.exit_code == 2
    assert "modle: unknown key" in result.stderr
