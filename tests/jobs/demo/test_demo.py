"""What the demo prints, and what it says is wrong."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console
from rich.table import Table

from jobs.demo import CHECKPOINTS, SPECS
from jobs.demo.demo import JOBS, DemoResult, dead_letters_table, results_table, run_demo
from jobs.spec.job import load_spec
from pipelines.ledger.progress import Progress

PROGRESS = Progress(
    phase="running", rows_done=3007, rows_failed=7, prompt_tokens=1_000_000, completion_tokens=200_000, seconds=60.0
)


def letter(kind: str, message: str) -> dict[str, Any]:
    return {"kind": kind, "message": message}


OUTCOMES = [
    DemoResult(
        job=job,
        progress=PROGRESS,
        accuracy=0.984,
        dead_letters=[
            letter("too_long", f"the text of {job.name} is {'very ' * 40} long"),
            letter("null_value", "[null]"),
        ],
        problems=(),
    )
    for job in JOBS
]


def shown(table: Table) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_results_fit_a_narrow_terminal_one_line_a_job() -> None:
    text = shown(results_table(OUTCOMES))
    assert "…" not in text
    for job in JOBS:
        (line,) = [line for line in text.splitlines() if line.strip().startswith(job.name)]
        assert line.split()[2:7] == ["3,007", "7", "50", "20,000", "98.4%"]


def test_job_that_was_finished_before_has_no_speed() -> None:
    resumed = replace(OUTCOMES[0], progress=replace(PROGRESS, rows_resumed=3007, prompt_tokens=0, completion_tokens=0))
    line = next(line for line in shown(results_table([resumed])).splitlines() if "summary" in line)
    assert line.split()[2:7] == ["3,007", "7", "-", "-", "98.4%"]


def test_dead_letters_are_counted_by_kind_over_all_jobs() -> None:
    text = shown(dead_letters_table(OUTCOMES))
    assert [line.split()[:2] for line in text.splitlines() if "_" in line] == [["null_value", "5"], ["too_long", "5"]]
    assert "[null]" in text


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_spec_reads_and_carries_what_the_measure_needs(job: Any) -> None:
    spec = load_spec(SPECS / f"{job.name}.yaml").job
    assert spec.input.columns is not None
    assert "ticket_id" in spec.input.columns
    assert spec.model.path.endswith(job.checkpoint)
    assert (CHECKPOINTS / job.checkpoint / "config.json").exists()


@pytest.mark.cluster("own")
@pytest.mark.timeout(400)
def test_demo_runs_every_job_on_one_cluster_and_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_demo(out=tmp_path / "demo", num_tickets=80, seed=77, address="local") == 0
    shown = capfd.readouterr().out
    assert all(re.search(rf"^ {job.name} +{job.task} +\d", shown, re.MULTILINE) for job in JOBS)
    assert "invalid_utf8" in shown
    assert all((tmp_path / "demo" / job.name / "report.html").exists() for job in JOBS)
    assert not ray.is_initialized()
