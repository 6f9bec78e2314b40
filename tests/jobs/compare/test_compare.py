"""Two runs held against each other: figures as scikit-learn 1.9.1 and numpy give them, over every task and format of output."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.compare.compare import Comparison, Differing, compare_runs
from jobs.compare.sides import Sides
from jobs.errors import UsageError
from pipelines.formats.batch_lines import answered_line
from pipelines.job import OutputFormat, OutputSpec
from pipelines.task_base.compared import Compared
from pipelines.task_base.task import Task
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.batch import BatchTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.embed import EmbedTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.kinds import IMPLIED, KINDS, recorded_task
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.rerank import RerankTask
from pipelines.tasks.several.task import SeveralTask
from pipelines.tasks.spans import SpansTask
from tests.helpers.jobs.made_runs import MadeRun, write_rows

A = ["a", "b", "b", "c", "a", "c", "b", "a", "d", "c", "a", "b"]
B = ["a", "b", "a", "c", "a", "b", "b", "c", "a", "c", "a", "c"]
CLASSIFY = ClassifyTask(text="{{ body }}")
GENERATE = GenerateTask(prompt="{{ body }}")


def labelled(labels: Sequence[str], score: float = 0.5) -> dict[str, Any]:
    names = "abcd"
    scores = [{name: score if name == label else (1 - score) / 3 for name in names} for label in labels]
    return {"label": [*labels], "score": [score] * len(labels), "scores": scores}


def made(folder: Path, name: str, results: dict[str, Any], **changes: Any) -> OutputSpec:
    """The run `name` over 12 rows, with these results."""
    corpus = folder / "in/rows.jsonl"
    if not corpus.exists():
        write_rows(corpus, [{"id": f"r{row}", "body": "x", "none": None} for row in range(12)])
    run = MadeRun(task=CLASSIFY, paths=[corpus], results=results, columns=("id",), required=("body",))
    return replace(run, **changes).write(folder / name)


def compared(a: OutputSpec, b: OutputSpec, **options: Any) -> tuple[Comparison, list[Differing]]:
    differing: list[Differing] = []
    return compare_runs(Sides.open(a, b), on_difference=differing.append, **options), differing


@pytest.mark.parametrize(("format_a", "format_b"), [("parquet", "parquet"), ("parquet", "jsonl"), ("jsonl", "jsonl")])
def test_labels_agree_as_scikit_learn_says(tmp_path: Path, format_a: OutputFormat, format_b: OutputFormat) -> None:
    """Whatever the formats, prefixes and sizes of units."""
    a = made(tmp_path, "a", labelled(A), format=format_a)
    b = made(tmp_path, "b", labelled(B, 0.8), format=format_b, prefix="out_", unit_rows=7, columns=None)
    found, differing = compared(a, b)
    tally = found.tally
    assert tally.num_rows == 12
    assert tally.agreement == pytest.approx(7 / 12)
    assert tally.kappa == pytest.approx(0.4)
    assert tally.pairs == {
        ("a", "a"): 3, ("a", "c"): 1, ("b", "a"): 1, ("b", "b"): 2, ("b", "c"): 1, ("c", "b"): 1, ("c", "c"): 2, ("d", "a"): 1,
    }  # fmt: skip
    assert [(row.place.number, row.differs) for row in differing] == [(row, "answers") for row in (2, 5, 7, 8, 11)]
    pairs = zip(labelled(A)["scores"], labelled(B, 0.8)["scores"], strict=True)
    apart = np.abs([[one[name] - other[name] for name in "abcd"] for one, other in pairs])
    assert tally.mean_difference == pytest.approx(apart.mean(), abs=1e-6)
    assert tally.largest == pytest.approx(apart.max(), abs=1e-6)


def test_equal_runs_agree_wholly(tmp_path: Path) -> None:
    found, differing = compared(made(tmp_path, "a", labelled(A)), made(tmp_path, "b", labelled(A)))
    assert (found.tally.agreement, found.tally.kappa, found.tally.largest, differing) == (1, 1, 0, [])


def test_kappa_is_not_defined_where_both_gave_one_label(tmp_path: Path) -> None:
    found, _ = compared(made(tmp_path, "a", labelled(["a"] * 12)), made(tmp_path, "b", labelled(["a"] * 12)))
    assert (found.tally.agreement, found.tally.kappa) == (1, None)


def test_rows_that_one_run_alone_has_are_told_apart(tmp_path: Path) -> None:
    """Row 1 is a dead letter of both, row 2 of the first, row 4 of the second, which has not the last two."""
    a = made(tmp_path, "a", labelled(A), failed=[1, 2])
    b = made(tmp_path, "b", labelled(A), failed=[1, 4], limit=10, unit_rows=4)
    found, differing = compared(a, b)
    assert (found.tally.num_rows, found.num_without) == (7, 1)
    assert (found.only_a.num_failed, found.only_a.num_absent) == (1, 2)
    assert (found.only_b.num_failed, found.only_b.num_absent) == (1, 0)
    assert [(row.place.number, row.differs) for row in differing] == [
        (2, "only in b"), (4, "only in a"), (10, "only in a"), (11, "only in a"),
    ]  # fmt: skip
    assert differing[0].as_json()["a"] is None


def test_files_are_matched_by_their_names_in_any_order(tmp_path: Path) -> None:
    first, second, third = (
        write_rows(tmp_path / f"in/{name}.jsonl", [{"id": f"{name}{row}", "body": "x"} for row in range(4)])
        for name in ("one", "two", "three")
    )
    a = made(tmp_path, "a", labelled([*"aaaabbbb"]), paths=[first, second])
    b = made(tmp_path, "b", labelled([*"bbbbaaaacccc"]), paths=[second, first, third])
    found, differing = compared(a, b)
    assert (found.tally.num_rows, found.tally.agreement, found.only_b.num_absent) == (8, 1, 4)
    assert {row.place.path for row in differing} == {"three.jsonl"}


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    paths = [write_rows(tmp_path / f"in/{name}/x.jsonl", [{"id": name, "body": "x"}] * 4) for name in ("one", "two")]
    a = made(tmp_path, "a", labelled([*"aaaabbbb"]), paths=paths)
    b = made(tmp_path, "b", labelled([*"bbbbaaaa"]), paths=paths[::-1])
    assert compared(a, b)[0].tally.agreement == 1


def several(labels: Sequence[str]) -> dict[str, Any]:
    """A multi-label checkpoint's results: each label that is named has 0.75, the others 0.25."""
    return {
        "label": ["a"] * len(labels),
        "score": [0.75] * len(labels),
        "scores": [{name: 0.75 if name in one else 0.25 for name in "abc"} for one in labels],
        "labels": [[*one] for one in labels],
    }


def test_several_labels_a_row_are_compared_as_sets_and_one_by_one(tmp_path: Path) -> None:
    """Kappa of `a` by hand: observed 8/12, by chance (6 * 6 + 6 * 6) / 144."""
    first, second = ["ab"] * 4 + ["a"] * 2 + [""] * 6, ["ba"] * 4 + ["c"] * 2 + ["a"] * 2 + [""] * 4
    found, _ = compared(made(tmp_path, "a", several(first)), made(tmp_path, "b", several(second)))
    assert found.tally.agreement == pytest.approx(8 / 12)
    assert found.tally.kappa is None
    labels = {one.label: one for one in found.tally.labels()}
    assert [(one.both, one.only_a, one.only_b, one.neither) for one in map(labels.__getitem__, "abc")] == [
        (4, 2, 2, 4), (4, 0, 0, 8), (0, 0, 2, 10),
    ]  # fmt: skip
    assert labels["a"].kappa == pytest.approx((8 / 12 - 0.5) / 0.5)
    assert labels["b"].kappa == 1


def test_texts_are_compared_as_they_are(tmp_path: Path) -> None:
    a = made(tmp_path, "a", {"text": ["x"] * 12}, task=GENERATE)
    b = made(tmp_path, "b", {"text": ["x"] * 9 + ["x ", "X", ""]}, task=GENERATE, format="jsonl")
    found, differing = compared(a, b)
    assert (found.tally.agreement, found.tally.kappa, found.tally.mean_difference) == (0.75, None, None)
    assert differing[0].as_json() == {
        "path": "rows.jsonl", "row": 9, "differs": "answers", "a": {"text": "x"}, "b": {"text": "x "},
    }  # fmt: skip


SPAN = {"start": 0, "end": 3, "label": "PER", "text": "Ann", "score": 0.5}
LATER = {"start": 5, "end": 8, "label": "LOC", "text": "Ulm", "score": 0.25}
FOUND = {"start": 0, "end": 3, "text": "Ann", "score": 0.5}


@pytest.mark.parametrize(
    ("task", "column", "first", "second", "equal", "largest"),
    [
        (SpansTask(text="x"), "spans", [SPAN, LATER], [LATER, {**SPAN, "score": 0.75}], 12, 0.25),
        (SpansTask(text="x"), "spans", [SPAN], [{**SPAN, "end": 4}], 0, 0),
        (SpansTask(text="x"), "spans", [SPAN, LATER], [SPAN], 0, 0),
        (AnswerTask(text="x", question="y"), "answer", FOUND, {**FOUND, "score": 0.25}, 12, 0.25),
        (AnswerTask(text="x", question="y"), "answer", FOUND, {**FOUND, "start": 1}, 0, 0),
        (AnswerTask(text="x", question="y"), "answer", FOUND, None, 0, 0),
    ],
)
def test_places_in_a_text_are_equal_whatever_their_scores(
    tmp_path: Path, task: Task, column: str, first: Any, second: Any, equal: int, largest: float
) -> None:
    a = made(tmp_path, "a", {column: [first] * 12}, task=task)
    b = made(tmp_path, "b", {column: [second] * 11 + [first if equal else second]}, task=task, format="jsonl")
    tally = compared(a, b)[0].tally
    assert (tally.num_equal, tally.num_answered, tally.largest) == (equal, 12, largest)


@pytest.mark.parametrize(
    ("task", "column", "first", "second"),
    [
        (RerankTask(query="q", document="d"), "score", 0.5, 0.75),
        (EmbedTask(text="x"), "embedding", [0.5, 0.25], [0.5, 0.5]),
    ],
)
def test_numbers_alone_differ_beyond_a_tolerance(
    tmp_path: Path, task: Task, column: str, first: Any, second: Any
) -> None:
    a = made(tmp_path, "a", {column: [first] * 12}, task=task)
    b = made(tmp_path, "b", {column: [second] * 6 + [first] * 6}, task=task, format="jsonl")
    found, differing = compared(a, b)
    assert (found.tally.agreement, found.tally.largest) == (None, 0.25)
    assert found.tally.mean_difference == pytest.approx(0.25 * 6 / (12 * np.size(first)))
    assert [(row.place.number, row.differs) for row in differing] == [(row, "numbers") for row in range(6)]
    assert compared(a, b, tolerance=0.25)[1] == []


def test_vectors_of_two_lengths_are_refused(tmp_path: Path) -> None:
    a = made(tmp_path, "a", {"embedding": [[0.5, 0.5]] * 12}, task=EmbedTask(text="x"))
    b = made(tmp_path, "b", {"embedding": [[0.5]] * 12}, task=EmbedTask(text="x"))
    with pytest.raises(UsageError, match="one run has 2 numbers a row and the other 1"):
        compared(a, b)


def test_a_regression_beside_labels_is_refused(tmp_path: Path) -> None:
    values = {"label": [None] * 12, "score": [0.5] * 12, "scores": [{"LABEL_0": 0.5}] * 12}
    with pytest.raises(UsageError, match="one run has answers and the other numbers alone"):
        compared(made(tmp_path, "a", values), made(tmp_path, "b", labelled(A)))


def batch_run(folder: Path, name: str, bodies: Sequence[Any]) -> OutputSpec:
    asked = [
        {"custom_id": f"c{row}", "method": "POST", "url": "/v1/completions", "body": {}} for row in range(len(bodies))
    ]
    lines = [answered_line(f"{row:032x}", f"c{row}", 200, body) for row, body in enumerate(bodies)]
    corpus = folder / "in/batch.jsonl"
    return made(
        folder, name, {"line": lines}, task=BatchTask(), format="openai-batch", input_format="openai-batch", columns=(),
        required=("custom_id",), paths=[corpus if corpus.exists() else write_rows(corpus, asked)],
    )  # fmt: skip


@pytest.mark.parametrize("by", [None, "custom_id"])
def test_answers_of_the_api_are_compared_without_what_every_answer_has_of_its_own(
    tmp_path: Path, by: str | None
) -> None:
    def body(number: int, text: str) -> dict[str, Any]:
        usage = {"prompt_tokens": 1, "completion_tokens": number}
        return {"id": f"cmpl-{number}", "created": number, "choices": [{"index": 0, "text": text}], "usage": usage}

    a = batch_run(tmp_path, "a", [body(row, f"t{row}") for row in range(6)])
    b = batch_run(tmp_path, "b", [body(row + 9, f"t{row}" if row else "other") for row in range(6)])
    found, differing = compared(a, b, by=by)
    assert found.tally.num_rows == 6
    assert found.tally.agreement == pytest.approx(5 / 6)
    assert [row.place.number for row in differing] == [0]


def test_vectors_of_the_api_are_compared_as_numbers(tmp_path: Path) -> None:
    first, second = ({"data": [{"embedding": [0.5, one]}], "usage": {}} for one in (0.5, 0.75))
    tally = compared(batch_run(tmp_path, "a", [first]), batch_run(tmp_path, "b", [second]))[0].tally
    assert (tally.agreement, tally.largest, tally.mean_difference) == (None, 0.25, 0.125)


def test_rows_of_other_inputs_are_matched_by_a_column(tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other/rows.jsonl", [{"id": f"r{row}", "body": "y"} for row in (3, 2, 1, 99)])
    a = made(tmp_path, "a", labelled(A), failed=[1])
    b = made(
        tmp_path, "b", labelled(["c", "x", "a", "a"]) | {"scores": [{"a": 1.0}] * 4}, paths=[other], format="jsonl"
    )
    found, differing = compared(a, b, by="id")
    assert (found.tally.num_rows, found.tally.agreement) == (2, 0.5)
    assert (found.only_a.num_absent, found.only_b.num_absent, found.num_without) == (9, 2, 1)
    assert differing[0].as_json() | {"a": 0, "b": 0} == {
        "path": "rows.jsonl", "row": 2, "id": "r2", "differs": "answers", "a": 0, "b": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("body", "--by body: .*/a carries no such column; it carries id, none"),
        ("none", "--by none: row 0 of rows.jsonl in .*/a has no value there"),
    ],
)
def test_a_column_that_tells_no_rows_apart_is_refused(tmp_path: Path, by: str, said: str) -> None:
    a, b = (made(tmp_path, name, labelled(A), columns=("id", "none")) for name in "ab")
    with pytest.raises(UsageError, match=said):
        compared(a, b, by=by)


def test_a_value_given_twice_is_refused(tmp_path: Path) -> None:
    twice = write_rows(tmp_path / "twice.jsonl", [{"id": "same", "body": "x"}] * 12)
    a, b = (made(tmp_path, name, labelled(A), paths=[twice]) for name in "ab")
    with pytest.raises(UsageError, match=r'row 1 of twice.jsonl in .*/a has "same", as a row before'):
        compared(a, b, by="id")


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    a = made(tmp_path, "a", labelled(A))
    b = made(tmp_path, "b", labelled(A), paths=[write_rows(tmp_path / "z.jsonl", [{"id": 1, "body": "x"}] * 12)])
    with pytest.raises(UsageError, match=r"no file in common, rows.jsonl is .* z.jsonl of the other; .* --by COLUMN"):
        compared(a, b)
    changed = [{"id": f"r{row}", "body": "y", "none": None} for row in range(11)]
    b = made(tmp_path, "c", labelled(A), paths=[write_rows(tmp_path / "other/rows.jsonl", changed)])
    with pytest.raises(UsageError, match=r"have other inputs: rows.jsonl had [\d,]+ bytes in one .* --by COLUMN"):
        compared(a, b)


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", labelled(A)), made(tmp_path, "b", {"text": ["x"] * 12}, task=GENERATE)
    with pytest.raises(UsageError, match=r"is a run of classify \(labels\) and .* one of generate \(texts\)"):
        compared(a, b)
    spans, answers = (
        made(tmp_path, "c", {"spans": [[]] * 12}, task=SpansTask(text="x")),
        made(tmp_path, "d", {"answer": [None] * 12}, task=AnswerTask(text="x", question="y")),
    )
    with pytest.raises(UsageError, match=r"a run of extract \(spans\) and .* one of extract \(answers\)"):
        compared(spans, answers)


def test_a_head_and_labels_of_ones_own_are_one_kind_of_task(tmp_path: Path) -> None:
    asked = LabelsTask(text="{{ body }}", labels=("a", "b", "c", "d"))
    found, _ = compared(made(tmp_path, "a", labelled(A), task=asked), made(tmp_path, "b", labelled(B)))
    assert found.tally.kappa == pytest.approx(0.4)


def test_a_run_that_is_not_complete_is_refused(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", labelled(A)), made(tmp_path, "b", labelled(A), missing=[1])
    with pytest.raises(UsageError, match=r"/b is not complete: 2 of 3 units are committed; run its job to the end"):
        compared(a, b)


def test_every_kind_of_task_says_how_it_is_compared() -> None:
    kinds = [IMPLIED[kind] if kind in IMPLIED else recorded_task({"kind": kind}) for kind in (*KINDS, *IMPLIED)]
    kinds += [LabelsTask, AnswerTask]
    kinds.remove(SeveralTask)  # each of its tasks says it
    assert all(isinstance(kind.compared, Compared) for kind in kinds)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_shows_figures_and_the_first_rows_and_writes_them_all(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", labelled(A), failed=[0]), made(tmp_path, "b", labelled(B))
    diff = tmp_path / "diff.jsonl"
    result = invoke("compare", a.path, b.path, "--diff", diff, "--show", "2")
    assert result.exit_code == 0, result.output
    for said in (
        "11 rows have a result in both, matched by file and row number; compared: labels",
        "agreement      0.5455  6 of 11 rows have equal labels",
        "Cohen's kappa  0.3",
        "only in b  1: 1 are dead letters in a, 0 are not there",
        "rows that differ, 2 of 6",
        "rows.jsonl, row 2: answers",
        f"all are in {diff}",
    ):
        assert said in result.stdout
    assert "row 5" not in result.stdout
    rows = [json.loads(line) for line in diff.read_text().splitlines()]
    assert [(row["row"], row["differs"]) for row in rows] == [
        (0, "only in b"),
        *((row, "answers") for row in (2, 5, 7, 8, 11)),
    ]
    assert rows[1]["a"]["label"] == "b"
    assert list(tmp_path.glob("*.partial")) == []


def test_the_command_shows_several_labels_a_row_one_by_one(tmp_path: Path) -> None:
    first, second = ["ab"] * 4 + ["a"] * 2 + [""] * 6, ["ba"] * 4 + ["c"] * 2 + ["a"] * 2 + [""] * 4
    a, b = made(tmp_path, "a", several(first)), made(tmp_path, "b", several(second))
    stdout = invoke("compare", a.path, b.path, "--show", "0").stdout
    assert "agreement      0.6667  8 of 12 rows have equal labels" in stdout
    assert "numbers        mean difference 0.0833, largest 0.5, over 36" in stdout
    table = [line.split() for line in stdout.partition("labels, by the rows that have them\n")[2].splitlines()[:4]]
    assert table == [
        ["both", "a", "alone", "b", "alone", "neither", "kappa"], ["a", "4", "2", "2", "4", "0.3333"],
        ["b", "4", "0", "0", "8", "1.0000"], ["c", "0", "0", "2", "10", "0.0000"],
    ]  # fmt: skip
    assert "do not have a result in both" not in stdout
    assert "4 rows differ" in stdout


def test_labels_are_a_table_that_a_terminal_can_be_shown(tmp_path: Path) -> None:
    a = made(tmp_path, "a", labelled(["a\x1b[2J"] * 6 + ["b"] * 6))
    b = made(tmp_path, "b", labelled(["a\x1b[2J"] * 5 + ["b"] * 7))
    stdout = invoke("compare", a.path, b.path).stdout
    assert "\x1b" not in stdout
    table = [line.split() for line in stdout.partition("of b across\n")[2].splitlines()[:3]]
    assert table == [["b", r"a\x1b[2J"], ["b", "6", "0"], [r"a\x1b[2J", "1", "5"]]


def test_a_comparison_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    twice = write_rows(tmp_path / "twice.jsonl", [{"id": "same", "body": "x"}] * 12)
    a, b = (made(tmp_path, name, labelled(A), paths=[twice]) for name in "ab")
    diff = tmp_path / "diff.jsonl"
    diff.write_text("mine")
    result = invoke("compare", a.path, b.path, "--by", "id", "--diff", diff)
    assert (result.exit_code, diff.read_text(), list(tmp_path.glob("*.partial"))) == (2, "mine", [])
    result = invoke("compare", a.path, b.path, "--diff", tmp_path / "no/such/diff.jsonl")
    assert result.exit_code == 2
    assert "it cannot be written (No such file or directory)" in result.stderr


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = invoke("compare", made(tmp_path, "a", labelled(A)).path, tmp_path)
    assert result.exit_code == 2
    assert "has no run.json" in result.stderr


def test_a_damaged_output_ends_with_1(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", labelled(A)), made(tmp_path, "b", labelled(A))
    data = sorted((tmp_path / "b/data").iterdir())[1]
    data.write_bytes(data.read_bytes()[:-1])
    result = invoke("compare", a.path, b.path)
    assert result.exit_code == 1
    assert "is not what was committed" in result.stderr


def test_a_run_in_a_bucket_is_compared_with_one_of_this_machine(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    b = made(tmp_path, "b", labelled(B))
    remote = replace(
        MadeRun(
            task=CLASSIFY, paths=[tmp_path / "in/rows.jsonl"], results=labelled(A), columns=("id",), required=("body",)
        ),
        format="jsonl",
        options=s3_options,
    ).write(f"s3://bucket/{tmp_path.name}/a")
    endpoint = s3_options["client_kwargs"]["endpoint_url"]
    given = ["key=k", "secret=s", f"client_kwargs.endpoint_url={endpoint}", "client_kwargs.region_name=us-east-1"]
    options = [part for one in given for part in ("--storage-option", one)]
    result = invoke("compare", remote.path, b.path, *options)
    assert result.exit_code == 0, result.output
    assert "Cohen's kappa  0.4000" in result.stdout
    result = invoke("compare", b.path, b.path, *options)
    assert result.exit_code == 2
    assert "is a folder of this machine, whose storage has no options" in result.stderr
