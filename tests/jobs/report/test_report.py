"""A report of an output folder that a ledger wrote: what is counted, what is shown, that nothing in it can run."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import UsageError
from jobs.report.facts import histogram, timeline
from jobs.report.report import gather, write_report
from jobs.report.source import RunOutput
from pipelines.formats.schema import Columns
from pipelines.io.open_output import open_store
from pipelines.job import InputSpec, Job, ModelSpec, OutputFormat, OutputSpec
from pipelines.ledger.check import check_run
from pipelines.ledger.ledger import Ledger
from pipelines.rows.rows import FinishedUnit, RowFailure, UnitRows
from pipelines.rows.unit import UnreadableUnit
from pipelines.task_base.task import Task
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'
PROMPT_TEXT = "<|im_start|>user\n" + "word " * 500 + "<|im_end|>\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A run whose third unit is not committed: rows 0 to 9 and 10 to 19 of 25 are, row 3 of each unit as a dead letter."""

    job: Job
    output: OutputSpec


def make_run(
    folder: Path,
    task: Task,
    *,
    format: OutputFormat = "parquet",
    prefix: str = "",
    out: str | None = None,
    options: dict[str, Any] | None = None,
) -> Made:
    corpus = folder / "tickets.jsonl"
    corpus.write_text("".join(json.dumps({"id": row, "body": f"ticket {row} {NASTY}"}) + "\n" for row in range(25)))
    output = OutputSpec(path=out or str(folder / "out"), format=format, prefix=prefix, storage_options=options or {})
    job = Job(
        name="label-tickets",
        model=ModelSpec(path=str(folder / "model")),
        task=task,
        input=InputSpec(paths=(str(corpus),), columns=("id",), storage_options={"secret": "hunter2"}),
        output=output,
        unit_rows=10,
    )
    columns = Columns(carried=("id",), required=frozenset({"body"}))
    with Ledger.open(job, {"unit_rows": 3}) as ledger:
        record = ledger.write_plan(
            lambda sink: plan_units(list_sources(job.input), job.input, columns, unit_rows=10, sink=sink)
        )
        reader = UnitReader(schema=record.schema)
        units = list(ledger.pending_units(ledger.survey()))
        for unit in units[:2]:
            ledger.committer().commit(finished(reader.read_unit(unit), job))
            if out is None:
                os.utime(folder / f"out/receipts/part-{unit.index:08d}.json", (1000 + 10 * unit.index,) * 2)
        ledger.write_unreadable([UnreadableUnit(unit=units[2], message="the disk is gone")])
    return Made(job=job, output=output)


def finished(rows: UnitRows, job: Job) -> FinishedUnit:
    ids = [row for row in rows.row_numbers.tolist() if row % 10 != 3]
    columns: dict[str, list[Any]] = {}
    if isinstance(job.task, GenerateTask):
        columns |= {"text": [f"about {row}" for row in ids], "finish_reason": ["stop"] * 9}
    else:
        columns |= {"label": ["billing", *["shipping"] * 8], "score": [0.5, *[0.75] * 8], "finish_reason": [None] * 9}
        columns["scores"] = [[("billing", 0.123456), ("shipping", 0.876544)]] * 9
    columns |= {"prompt_tokens": [100 + row for row in ids], "completion_tokens": [2] * 9}
    fields: dict[str, Any] = {"scores": pa.map_(pa.string(), pa.float32()), "finish_reason": pa.string()}
    arrays = {name: pa.array(values, fields.get(name)) for name, values in columns.items()}
    results = pa.table({job.output.prefix + name: array for name, array in arrays.items()})
    bad = rows.row_numbers.tolist()[3]
    failure = RowFailure(
        row=bad, kind="null_value", message=f"'body' is null {NASTY}", input={"id": bad, "body": NASTY}
    )
    return FinishedUnit(
        unit=rows.unit,
        carried=rows.rows.kept(rows.row_numbers % 10 != 3).carried(job.input.columns),
        results=results,
        failures=(failure,),
        prompt_tokens=1000,
        cached_tokens=50,
        completion_tokens=18,
        seconds=4.0,
        prompt=f"{PROMPT_TEXT}{NASTY}" if rows.unit.index == 0 else None,
    )


@pytest.fixture
def classified(tmp_path: Path) -> Made:
    return make_run(tmp_path, ClassifyTask(text="{{ body }}"))


def test_facts_are_the_receipts_sums(classified: Made) -> None:
    facts = gather(RunOutput.open(classified.output, input_options={}))
    assert (facts.name, facts.units_total, facts.units_done, facts.units_failed) == ("label-tickets", 3, 2, 1)
    assert (facts.rows_total, facts.rows_written, facts.rows_failed) == (25, 18, 2)
    assert (facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens) == (2000, 100, 36)
    assert not facts.is_complete
    assert facts.active_s == pytest.approx(14.0)
    assert facts.tokens_per_s == pytest.approx((2036 - 100) / 14)


def test_cached_tokens_stand_beside_those_that_were_computed(classified: Made) -> None:
    write_report(classified.output)
    page = (Path(classified.output.path) / "report.html").read_text()
    assert "<b>138</b><span>tokens computed/s</span>" in page  # (2,036 - 100) / 14 s
    assert "<b>100</b><span>tokens cached</span>" in page


def test_labels_and_lengths_are_counted(classified: Made) -> None:
    facts = gather(RunOutput.open(classified.output, input_options={}))
    assert [(label.label, label.count, label.mean_score) for label in facts.tasks[0].labels] == [
        ("shipping", 16, 0.75),
        ("billing", 2, 0.5),
    ]
    assert facts.tasks[0].labels[0].share == pytest.approx(16 / 18)
    assert facts.prompt_lengths is not None
    assert (sum(facts.prompt_lengths.counts), facts.prompt_lengths.longest) == (18, 119)
    assert facts.completion_lengths is None


def test_failures_have_examples_and_unreadable_units_count(classified: Made) -> None:
    facts = gather(RunOutput.open(classified.output, input_options={}))
    assert [(kind.kind, kind.count, len(kind.examples)) for kind in facts.failures] == [
        ("null_value", 2, 2),
        ("unreadable unit", 5, 1),
    ]
    assert facts.failures[0].examples[0].row == 3


def test_sample_shows_a_rows_own_input_beside_its_output(classified: Made) -> None:
    facts = gather(RunOutput.open(classified.output, input_options={}))
    assert len(facts.sample) == 12
    assert not {3, 13} & {row.row for row in facts.sample}
    for row in facts.sample:
        assert row.inputs["id"] == str(row.row)
        assert row.inputs["body"].startswith(f"ticket {row.row} ")
        assert row.outputs["prompt_tokens"] == str(100 + row.row)
        assert row.outputs["scores"] == '{"billing":0.1235,"shipping":0.8765}'
        assert "id" not in row.outputs


def test_sample_without_the_input_shows_the_carried_columns(classified: Made) -> None:
    Path(classified.job.input.paths[0]).unlink()
    facts = gather(RunOutput.open(classified.output, input_options={}))
    assert [row.inputs for row in facts.sample] == [{"id": str(row.row)} for row in facts.sample]


def test_jsonl_output_with_a_prefix_is_counted_alike(tmp_path: Path) -> None:
    made = make_run(tmp_path, GenerateTask(prompt="{{ body }}"), format="jsonl", prefix="out_")
    facts = gather(RunOutput.open(made.output, input_options={}))
    assert facts.tasks[0].labels_of == "How texts ended"
    assert [(label.label, label.count) for label in facts.tasks[0].labels] == [("stop", 18)]
    assert facts.completion_lengths is not None
    assert facts.completion_lengths.counts == [18]
    assert facts.sample[0].outputs["out_text"].startswith("about ")


def test_labels_in_jsonl_output_are_counted(tmp_path: Path) -> None:
    made = make_run(tmp_path, ClassifyTask(text="{{ body }}"), format="jsonl")
    facts = gather(RunOutput.open(made.output, input_options={}))
    assert facts.tasks[0].labels_of == "Labels of rows"
    assert sum(label.count for label in facts.tasks[0].labels) == 18


def test_output_in_a_bucket_is_read_and_written_there(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    made = make_run(tmp_path, ClassifyTask(text="{{ body }}"), out="s3://bucket/report", options=s3_options)
    output = RunOutput.open(made.output, input_options={})
    facts = gather(output)
    assert (facts.rows_written, facts.rows_failed, len(facts.sample)) == (18, 2, 12)
    assert all(time_s > 1e9 for time_s in output.store.times("receipts").values())
    assert write_report(made.output).page == "s3://bucket/report/report.html"


def test_output_in_a_bucket_without_a_receipt_has_a_report(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    made = make_run(tmp_path, ClassifyTask(text="{{ body }}"), out=f"s3://bucket/{tmp_path.name}", options=s3_options)
    store = open_store(made.output)
    for name, _ in list(store.sizes("receipts")):
        store.delete(f"receipts/{name}")
    write_report(made.output)
    assert json.loads(store.read("report.json") or b"")["units_done"] == 0


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(made: Made) -> tuple[str, Tags]:
    page = Path(write_report(made.output).page).read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    return page, tags


def test_page_runs_and_loads_nothing(classified: Made) -> None:
    page, tags = page_of(classified)
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not {"script", "img", "iframe", "link", "object", "embed", "form", "base"} & set(tags.tags)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert not [
        value
        for name, value in tags.attributes
        if name in ("src", "href", "xlink:href", "action") and not str(value).startswith("#")
    ]
    assert NASTY in "".join(tags.text)


def test_page_says_what_the_facts_say(classified: Made) -> None:
    _, tags = page_of(classified)
    text = re.sub(r"\s+", " ", " ".join(tags.text))
    for part in (
        "label-tickets",
        "2 of 3 units",
        "18 rows written",
        "2 rows failed",
        "shipping 16 88.9% 0.750",
        "null_value",
        "kind: classify",
    ):
        assert part in text
    assert tags.tags.count("svg") == 2 + 2  # throughput, prompt lengths, two bars of labels


def test_page_shows_what_the_model_read_of_the_first_row_whole(classified: Made) -> None:
    page, tags = page_of(classified)
    assert f"{PROMPT_TEXT}{NASTY}" in tags.text
    assert "&lt;|im_start|&gt;user" in page
    prompt = Path(classified.output.path) / "prompt.txt"
    assert prompt.read_text(encoding="utf-8") == f"{PROMPT_TEXT}{NASTY}"
    assert not any("prompt" in str(flaw) for flaw in check_run(open_store(classified.output)))
    prompt.unlink()  # as in a folder of a version before
    assert "All that the model has read" not in page_of(classified)[0]


def test_page_holds_no_storage_secret(classified: Made) -> None:
    page, _ = page_of(classified)
    numbers = (Path(classified.output.path) / "report.json").read_text()
    assert "hunter2" not in page
    assert "hunter2" not in numbers


def test_numbers_are_written_beside_the_page(classified: Made) -> None:
    write_report(classified.output)
    numbers = json.loads((Path(classified.output.path) / "report.json").read_text())
    assert numbers["rows_written"] == 18
    assert numbers["tokens_per_s"] == pytest.approx((2036 - 100) / 14)
    assert numbers["labels"][0]["label"] == "shipping"


def test_run_without_a_committed_unit_has_a_report(classified: Made) -> None:
    for receipt in (Path(classified.output.path) / "receipts").iterdir():
        receipt.unlink()
    page, tags = page_of(classified)
    assert "0 of 3 units" in page
    assert "svg" not in tags.tags


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no run.json: no run was planned there"):
        write_report(OutputSpec(path=str(tmp_path)))


def test_model_that_is_there_is_described(tmp_path: Path, tiny_checkpoint: object) -> None:
    assert callable(tiny_checkpoint)
    shutil.copytree(tiny_checkpoint("sequence-classification"), tmp_path / "model")
    made = make_run(tmp_path, ClassifyTask(text="{{ body }}"))
    facts = gather(RunOutput.open(made.output, input_options={}))
    assert facts.model["architecture"] == "Qwen3ForSequenceClassification"
    assert facts.model["classes"] == "LABEL_0, LABEL_1"


def test_time_without_work_is_left_out() -> None:
    throughput, active_s = timeline(
        committed=np.array([10.0, 5000.0, 20.0]),
        seconds=np.array([5.0, 10.0, 5.0]),
        rows=np.array([10.0, 10.0, 10.0]),
        tokens=np.array([100.0, 200.0, 300.0]),
    )
    assert throughput is not None
    assert active_s == pytest.approx(25.0)
    assert sum(throughput.rows_per_s) * throughput.bin_s == pytest.approx(30.0)
    assert sum(throughput.tokens_per_s) * throughput.bin_s == pytest.approx(600.0)


def test_histogram_has_a_bounded_number_of_whole_bins() -> None:
    lengths = np.array([3, 3, 4, 900])
    found = histogram(lengths)
    assert found is not None
    assert len(found.counts) <= 60
    assert sum(found.counts) == 4
    assert (found.edges[0], found.median, found.longest) == (3, 3, 900)
    assert histogram(np.array([], np.int64)) is None


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_browser_shows_the_page_without_a_complaint(classified: Made, tmp_path: Path) -> None:
    page = write_report(classified.output).page
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    command += [
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
    ]
    shown = subprocess.run(
        [*command, "--dump-dom", f"file://{page}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "label-tickets" in shown.stdout
    assert "CONSOLE" not in shown.stderr  # what a content policy refuses is logged there
