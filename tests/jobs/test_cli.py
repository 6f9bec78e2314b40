"""The command line: what it imports, prints and exits with."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import jobs.report.report
import pipelines.run
from jobs.boundary import at_boundary
from jobs.cli import app
from jobs.errors import SpecError
from models.errors import CheckpointError, EngineError
from pipelines.errors import ClusterError, FingerprintError, LeaseError, OutputError, PlanError
from pipelines.job import Job
from pipelines.ledger.progress import ExitStatus, Progress, RunSummary
from pipelines.opened import Opening
from pipelines.tasks.generate import GenerateTask
from tests.helpers.jobs.made_runs import MadeRun

SpecWriter = Callable[[str], Path]
CheckpointMaker = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("prepared_here")

SPEC = """\
name: j
model: {{path: {model}}}
task: {{kind: classify, text: "{{{{ body }}}}"}}
input: {{paths: [{corpus}]}}
output: {{path: {out}}}
"""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def spec(write_spec: SpecWriter, tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    corpus = tmp_path / "t.jsonl"
    corpus.write_text("".join(json.dumps({"body": f"hello world {row}"}) + "\n" for row in range(20)))
    return write_spec(
        SPEC.format(model=tiny_checkpoint("sequence-classification"), corpus=corpus, out=tmp_path / "out")
    )


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "pyarrow", "pydantic", "transformers", "numpy", "matplotlib", "yaml", "jinja2"}
    code = f"import jobs.cli, sys; print(sorted({heavy!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_help_lists_the_commands() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("run", "plan", "check", "report", "compare", "bench", "demo"):
        assert f" {command} " in result.output


def test_python_m_jobs_is_the_command() -> None:
    shown = subprocess.run([sys.executable, "-m", "jobs", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("millrace ")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_wrong_spec_ends_with_2_and_its_place_without_a_traceback(write_spec: SpecWriter, command: str) -> None:
    path = write_spec("name: j\nmodle: {path: m}\n")
    result = invoke(command, path)
    assert result.exit_code == 2
    assert f"{path}:2: modle: unknown key; did you mean model?" in result.stderr
    assert "Traceback" not in result.output


def test_missing_model_ends_with_2_before_anything_is_written(spec: Path, tmp_path: Path) -> None:
    result = invoke("run", spec, "--set", f"model.path={tmp_path}")
    assert result.exit_code == 2
    assert "--set model.path: model.path: " in result.stderr
    assert not (tmp_path / "out").exists()


def test_limit_below_one_is_refused(spec: Path) -> None:
    assert invoke("run", spec, "--limit", "0").exit_code == 2


def test_unknown_command_is_refused() -> None:
    assert invoke("rum").exit_code == 2


@pytest.mark.parametrize("status", [0, 1, 3, 130])
def test_run_ends_with_the_summarys_status(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: ExitStatus
) -> None:
    asked: list[tuple[int | None, str | None]] = []

    def fake_run(
        job: Job, *, address: str | None, on_progress: Callable[[Progress], None], **rest: object
    ) -> RunSummary:
        asked.append((job.limit, address))
        on_progress(Progress(phase="planning"))
        return RunSummary(exit_status=status, message="that was it", output="o", progress=Progress(phase="running"))

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    result = invoke("run", spec, "--limit", "5", "--address", "local")
    assert result.exit_code == status
    assert asked == [(5, "local")]
    assert "planning the input" in result.stderr
    assert "that was it" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "first"),
    [
        ("regression", 1, r"millrace: .* is a regression.*\n"),
        ("regression", 3, r"millrace: .* is a regression.*\n"),
        (None, 3, "planning the input\n"),
        (None, 1, "planning the input\n"),
    ],
)
def test_a_run_over_a_regression_says_so_in_its_first_line(
    problem_type: str | None,
    num_labels: int,
    first: str,
    write_spec: SpecWriter,
    tiny_checkpoint: CheckpointMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fake_run(job: Job, *, opening: Opening, on_progress: Callable[[Progress], None], **rest: object) -> RunSummary:
        opening.finish()
        on_progress(Progress(phase="planning"))
        return RunSummary(exit_status=0, message="that was it", output="o", progress=Progress(phase="running"))

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    (tmp_path / "t.jsonl").write_text('{"body": "hello"}\n')
    fields = {"num_labels": num_labels} | ({} if problem_type is None else {"problem_type": problem_type})
    model = tiny_checkpoint("sequence-classification", **fields)
    result = invoke("run", write_spec(SPEC.format(model=model, corpus=tmp_path / "t.jsonl", out=tmp_path / "out")))
    assert result.exit_code == 0
    assert re.match(first, result.stderr)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(("method", "is_warned"), [("nf4", True), ("int8", False)])
def test_four_bits_of_a_small_model_are_warned_of_before_anything_is_computed(
    command: str, method: str, is_warned: bool, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_run(job: Job, *, opening: Opening, **rest: object) -> RunSummary:
        opening.finish()
        return RunSummary(exit_status=0, message="that was it", output="o", progress=Progress(phase="running"))

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    result = invoke(command, spec, "--set", f"model.quantization={method}")
    assert result.exit_code == 0
    said = re.findall(r"warning: model\.quantization: nf4 holds [\d,]+ weights", result.output)
    assert len(said) == is_warned


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_report_that_fails_leaves_the_status_to_the_run(
    spec: Path, monkeypatch: pytest.MonkeyPatch, status: ExitStatus
) -> None:
    def fake_run(
        job: Job, *, address: str | None, on_progress: Callable[[Progress], None], **rest: object
    ) -> RunSummary:
        return RunSummary(exit_status=status, message="that was it", output="o", progress=Progress(phase="running"))

    def fail(spec: object) -> bool:
        raise FileNotFoundError("bucket/out/receipts")

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    monkeypatch.setattr(jobs.report.report, "is_planned", fail)
    result = invoke("run", spec)
    assert result.exit_code == status
    assert "the report could not be written (FileNotFoundError: bucket/out/receipts)" in result.stderr


def test_a_truth_that_cannot_be_used_leaves_the_status_to_the_run(
    spec: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run's task is another by the time its report is written, as its results have no labels."""

    def fake_run(job: Job, **rest: object) -> RunSummary:
        made = MadeRun(task=GenerateTask(prompt="x"), paths=job.input.paths, results={"text": ["x"] * 20})
        made.write(job.output.path)
        return RunSummary(exit_status=0, message="that was it", output="o", progress=Progress(phase="running"))

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    result = invoke("run", spec, "--set", "report.truth=body")
    assert result.exit_code == 0
    assert f"millrace: report: {tmp_path}/out/report.html\n" in result.stderr
    assert "millrace: report.truth: the results of this task of the kind generate have no labels" in result.stderr


def test_address_in_the_spec_is_used_unless_one_is_given(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def fake_run(
        job: Job, *, address: str | None, on_progress: Callable[[Progress], None], **rest: object
    ) -> RunSummary:
        asked.append(address)
        return RunSummary(exit_status=0, message="", output="o", progress=Progress(phase="running"))

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    invoke("run", spec, "--set", "cluster=10.0.0.1:6379")
    invoke("run", spec, "--set", "cluster=10.0.0.1:6379", "--address", "auto")
    assert asked == ["10.0.0.1:6379", "auto"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "no service 'other' was started from here"),
        ("{", "other.json is not the record of a service"),
        ("[]", "other.json is not the record of a service"),
        ('{"name": "other"}', "other.json is not the record of a service"),
    ],
)
def test_a_service_that_cannot_be_joined_is_told_with_its_key(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str | None, said: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / ".millrace/services"
    folder.mkdir(parents=True)
    if record is not None:
        (folder / "other.json").write_text(record)
    result = invoke("run", spec, "--set", "engine={service: other}")
    assert result.exit_code == 2
    assert "--set engine: engine.service: " in result.stderr
    assert said in result.stderr


def test_an_input_without_rows_ends_with_2(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n")
    result = invoke("plan", spec)
    assert result.exit_code == 2
    assert f"{spec}:4: input.paths: the input has no rows: {tmp_path / 't.jsonl'} holds none" in result.stderr


def test_sizes_that_no_engine_can_have_end_with_2(spec: Path, tiny_checkpoint: CheckpointMaker) -> None:
    sizes = f"model.path={tiny_checkpoint()}", "task={kind: generate, prompt: x}", "engine={cache_bytes: 1}"
    result = invoke("plan", spec, *(part for size in sizes for part in ("--set", size)))
    assert result.exit_code == 2
    assert "--set engine: engine: a cache of 1 bytes holds no block" in result.stderr


def test_column_that_only_planning_misses_is_told_with_its_place(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_run(
        job: Job, *, address: str | None, on_progress: Callable[[Progress], None], **rest: object
    ) -> RunSummary:
        raise PlanError("the input has no column boddy; it has: body", missing_columns=["boddy"])

    monkeypatch.setattr(pipelines.run, "run", fake_run)
    result = invoke("run", spec, "--set", "task.text='{{ boddy }}'")
    assert result.exit_code == 2
    assert "--set task.text: task.text: the input has no column boddy" in result.stderr


def test_plan_prints_an_estimate_and_writes_nothing(spec: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = invoke("plan", spec)
    assert result.exit_code == 0
    assert "j: the spec is valid" in result.stdout
    assert "rows   20" in result.stdout
    assert "would be computed again" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_takes_a_limit_and_tells_the_order_of_parts(spec: Path) -> None:
    parts = ["task.text='{{ parts }}'", "parts=['{{ body }}', 'Of {{ kind | default(1) }}:']"]
    told = invoke("plan", spec, "--limit", "7", *(part for given in parts for part in ("--set", given))).stdout
    assert "rows   7" in told
    shared = "  24% of their text in 20 sampled rows is in beginnings that other rows have too; as given 0%"
    assert f"  'Of {{{{ kind | default(1) }}}}:'\n  '{{{{ body }}}}'\n{shared}\n" in told
    assert "  | Of 1:\n  | hello world 0\n" in told


def test_check_of_a_folder_without_a_run_ends_with_1(tmp_path: Path) -> None:
    result = invoke("check", tmp_path)
    assert result.exit_code == 1
    assert "run.json" in result.stdout


def test_report_of_a_folder_without_a_run_ends_with_2(tmp_path: Path) -> None:
    result = invoke("report", tmp_path)
    assert result.exit_code == 2
    assert "has no run.json" in result.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SpecError(["spec.yaml:1: wrong"]), 2),
        (PlanError("no file"), 2),
        (FingerprintError("another run"), 2),
        (ClusterError("too small"), 2),
        (CheckpointError("no weights"), 2),
        (LeaseError("somebody else"), 1),
        (OutputError("disk full"), 1),
        (EngineError("out of memory"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_expected_errors_are_one_message_and_a_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    def command() -> int:
        raise error

    with pytest.raises(typer.Exit) as ended:
        at_boundary(command)()
    assert ended.value.exit_code == status
    assert capsys.readouterr().err.startswith("millrace: ")


def test_error_that_nobody_expected_keeps_its_traceback() -> None:
    def command() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        at_boundary(command)()


def test_log_level_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_LOG", "loud")
    result = invoke("check", tmp_path)
    assert result.exit_code == 2
    assert "MILLRACE_LOG was 'loud'; it must be one of debug, info, warning, error" in result.stderr
