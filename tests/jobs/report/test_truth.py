"""Results held against a truth: figures as scikit-learn 1.9.1 and seqeval 1.2.2 give them for the same rows, and what is refused."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import s3fs
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from jobs.report.judging import MAX_WORST
from jobs.report.report import gather, write_report
from jobs.report.source import RunOutput
from jobs.report.truth_facts import TruthFacts
from pipelines.job import OutputFormat, OutputSpec
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.several.task import SeveralTask
from pipelines.tasks.spans import SpansTask
from tests.helpers.jobs.made_runs import MadeRun, write_rows

CheckpointMaker = Callable[..., Path]

TRUTH = ["a", "b", "b", "c", "a", "c", "b", "a", "d", "c", "a", "b"]
GIVEN = ["a", "b", "a", "c", "a", "b", "b", "c", "a", "c", "a", "c"]
SCORES = [0.95, 0.85, 0.55, 0.7, 0.9, 0.65, 0.45, 0.8, 0.75, 0.3, 1.0, 0.52]
NASTY = '<script>alert("x")</script>'
CLASSES = ("a", "b", "c", "never")


def scores_of(label: str, score: float) -> dict[str, float]:
    """The label's score, and what is left for the other classes."""
    return {name: score if name == label else (1 - score) / (len(CLASSES) - 1) for name in CLASSES}


def classified(folder: Path, truths: Sequence[Any] = TRUTH, *, ending: str = ".jsonl", **changes: Any) -> OutputSpec:
    """A run that gave `GIVEN` to rows with these truths."""
    rows = [{"id": row, "body": f"text {row} {NASTY} {'x' * 900}", "truth": truth} for row, truth in enumerate(truths)]
    results: dict[str, list[Any]] = {
        "label": GIVEN, "score": SCORES, "scores": [scores_of(*pair) for pair in zip(GIVEN, SCORES, strict=True)],
    }  # fmt: skip
    made = MadeRun(
        task=ClassifyTask(text="{{ body }}"),
        paths=[write_rows(folder / f"in/rows{ending}", rows)],
        results={name: values[: len(rows)] for name, values in results.items()},
        columns=("id",),
        required=("body",),
    )
    return replace(made, **changes).write(folder / "out")


def truth_facts(output: OutputSpec, column: str = "truth") -> TruthFacts:
    facts = gather(RunOutput.open(output, input_options={}), truth=column)
    assert facts.tasks[0].truth_problem is None
    assert facts.tasks[0].truth is not None
    return facts.tasks[0].truth


def problem(output: OutputSpec, column: str = "truth") -> str:
    facts = gather(RunOutput.open(output, input_options={}), truth=column)
    assert facts.tasks[0].truth is None
    assert facts.tasks[0].truth_problem is not None
    return facts.tasks[0].truth_problem


def figures(found: TruthFacts) -> dict[str, tuple[float, float, float, int]]:
    return {one.label: (one.precision, one.recall, one.f1, one.support) for one in found.labels}


@pytest.mark.parametrize("carried", [("id", "truth"), ("id",), None])
@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".arrow"])
def test_labels_are_judged_as_scikit_learn_judges_them(
    tmp_path: Path, ending: str, format: OutputFormat, carried: tuple[str, ...] | None
) -> None:
    """From every format of input and output, whether the truth was carried or not."""
    found = truth_facts(classified(tmp_path, ending=ending, format=format, columns=carried))
    assert (found.num_rows, found.num_unknown, found.num_unusable) == (12, 0, 0)
    assert found.accuracy == pytest.approx(0.5833333333)
    assert found.macro_f1 == pytest.approx(0.4523809524)
    assert figures(found) == {
        "a": pytest.approx((0.6, 0.75, 0.6666666667, 4)),
        "b": pytest.approx((0.6666666667, 0.5, 0.5714285714, 4)),
        "c": pytest.approx((0.5, 0.6666666667, 0.5714285714, 3)),
        "d": (0, 0, 0, 1),
        "never": (0, 0, 0, 0),
    }
    assert found.confusion is not None
    assert (found.confusion.labels, found.confusion.num_others) == (["a", "b", "c", "d"], 0)
    assert [counts[:4] for counts in found.confusion.counts[:4]] == [
        [3, 0, 1, 0], [1, 2, 1, 0], [0, 1, 2, 0], [1, 0, 0, 0],
    ]  # fmt: skip


def test_reliability_is_as_the_formula_has_it(tmp_path: Path) -> None:
    """Bins by hand; shares and means are those of scikit-learn's `calibration_curve(n_bins=10)`."""
    found = truth_facts(classified(tmp_path)).reliability
    assert found is not None
    assert found.counts == [0, 0, 1, 0, 1, 2, 2, 2, 2, 2]
    assert [share for share in found.shares_right if share is not None] == [1, 1, 0, 0.5, 0, 1, 1]
    means = [mean for mean in found.mean_scores if mean is not None]
    assert means == pytest.approx([0.3, 0.45, 0.535, 0.675, 0.775, 0.875, 0.975])
    gaps = [0.7 * 1, 0.55 * 1, 0.535 * 2, 0.175 * 2, 0.775 * 2, 0.125 * 2, 0.025 * 2]
    assert found.ece == pytest.approx(sum(gaps) / 12)


def test_worst_disagreements_are_the_surest_wrong_ones_with_their_rows_text(tmp_path: Path) -> None:
    found = truth_facts(classified(tmp_path)).disagreements
    assert [(one.row, one.said, one.right, round(one.score, 4)) for one in found] == [
        (7, "c", "a", 0.8), (8, "a", "d", 0.75), (5, "b", "c", 0.65), (2, "a", "b", 0.55), (11, "c", "b", 0.52),
    ]  # fmt: skip
    assert found[0].inputs["body"].startswith(f"text 7 {NASTY}")
    assert len(found[0].inputs["body"]) == 600
    assert "truth" not in found[0].inputs


def test_only_so_many_disagreements_are_shown(tmp_path: Path) -> None:
    output = classified(tmp_path, ["none of them"] * 12)
    assert [one.row for one in truth_facts(output).disagreements] == [10, 0, 4, 1, 7, 8, 3, 5, 2, 11][:MAX_WORST]


def test_rows_without_a_truth_or_a_result_are_apart(tmp_path: Path) -> None:
    """Row 0 has no result, rows 1 to 3 no truth."""
    truths: list[Any] = [*TRUTH]
    truths[1], truths[2] = None, " "
    rows = [{"id": row, "body": "x"} | ({} if row == 3 else {"truth": truth}) for row, truth in enumerate(truths)]
    output = classified(tmp_path, truths, failed=[0], paths=[write_rows(tmp_path / "other.jsonl", rows)])
    found = truth_facts(output)
    assert (found.num_rows, found.num_unknown) == (8, 3)
    assert found.accuracy == pytest.approx(4 / 8)


def test_whole_numbers_and_truth_values_are_labels_by_their_names(tmp_path: Path) -> None:
    results = {"label": ["1", "2", "true", "false"], "score": [0.5] * 4, "scores": [{"1": 0.5, "2": 0.5}] * 4}
    found = truth_facts(classified(tmp_path, [1, 2, True, True], results=results))
    assert found.accuracy == 0.75


def test_a_truth_that_folders_say_is_read(tmp_path: Path) -> None:
    paths = []
    for label in ("a", "b"):
        paths.append(
            write_rows(tmp_path / f"in/truth={label}/rows.jsonl", [{"id": row, "body": "x"} for row in range(6)])
        )
    found = truth_facts(classified(tmp_path, paths=paths))
    assert found.accuracy == pytest.approx(sum(map(str.__eq__, GIVEN, [*"aaaaaabbbbbb"])) / 12)


def test_several_labels_a_row_are_judged_one_by_one(tmp_path: Path) -> None:
    truths = [["a"], ["a", "b"], [], ["c"], ["b", "c"], ["a"]]
    values = [[0.9, 0.2, 0.1], [0.8, 0.4, 0.6], [0.1, 0.5, 0.2], [0.3, 0.3, 0.7], [0.6, 0.9, 0.55], [0.2, 0.1, 0.05]]
    scores = [dict(zip("abc", row, strict=True)) for row in values]
    results: Mapping[str, Any] = {
        "label": ["a", "a", "b", "c", "b", "a"],
        "score": [max(row) for row in values],
        "scores": scores,
        "labels": [[name for name, score in row.items() if score >= 0.5] for row in scores],
    }
    found = truth_facts(classified(tmp_path, truths, results=results))
    assert found.form == "labels"
    assert found.accuracy == pytest.approx(1 / 3)
    assert (found.precision, found.recall, found.f1) == pytest.approx((0.625, 0.7142857143, 0.6666666667))
    assert found.macro_f1 == pytest.approx(0.6555555556)
    assert figures(found) == {
        "a": pytest.approx((2 / 3, 2 / 3, 2 / 3, 3)), "b": (0.5, 0.5, 0.5, 2), "c": pytest.approx((2 / 3, 1, 0.8, 2)),
    }  # fmt: skip
    assert found.confusion is None
    assert found.reliability is not None
    assert sum(found.reliability.counts) == 18
    assert [(one.row, one.said, one.right) for one in found.disagreements][:2] == [(5, "not a", "a"), (1, "c", "a, b")]


SPANS = [
    ([(0, 3, "PER", 0.9), (13, 17, "ORG", 0.8)], [(0, 3, "PER"), (13, 17, "LOC")]),
    ([(0, 3, "PER", 0.7), (8, 10, "PER", 0.6)], [(0, 3, "PER"), (8, 11, "PER")]),
    ([(0, 4, "LOC", 0.95)], []),
    ([], []),
]


def spans_run(folder: Path, format: OutputFormat = "parquet") -> OutputSpec:
    given = [
        [{"start": start, "end": end, "label": label, "text": "x", "score": score} for start, end, label, score in one]
        for one, _ in SPANS
    ]
    truths = [[{"start": start, "end": end, "label": label} for start, end, label in one] for _, one in SPANS]
    return classified(
        folder, truths, task=SpansTask(text="{{ body }}"), results={"spans": given}, format=format, columns=None
    )


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_spans_are_judged_as_entities(tmp_path: Path, format: OutputFormat) -> None:
    """As seqeval's strict matching of the same tags."""
    found = truth_facts(spans_run(tmp_path, format))
    assert (found.form, found.num_rows, found.accuracy) == ("spans", 4, 0.25)
    assert (found.precision, found.recall, found.f1) == pytest.approx((0.4, 0.5, 0.4444444444))
    assert found.macro_f1 == pytest.approx(0.2222222222)
    assert figures(found)["PER"] == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    assert found.confusion is not None
    assert found.confusion.labels == ["PER", "LOC", "ORG"]
    assert found.confusion.counts == [[2, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert [(one.row, one.said, one.right) for one in found.disagreements] == [
        (2, "LOC, characters 0 to 4", "none"), (0, "ORG, characters 13 to 17", "LOC"), (1, "PER, characters 8 to 10", "none"),
    ]  # fmt: skip


def test_labels_beyond_those_of_the_matrix_are_counted_together(tmp_path: Path) -> None:
    names = [f"n{row:02}" for row in range(30)]
    results = {"label": names, "score": [0.5] * 30, "scores": [{"n00": 0.5, "n01": 0.5}] * 30}
    found = truth_facts(classified(tmp_path, [*names[1:], names[0]], results=results)).confusion
    assert found is not None
    assert (len(found.labels), found.num_others) == (20, 10)
    assert [len(counts) for counts in found.counts] == [21] * 21
    assert sum(map(sum, found.counts)) == 30
    assert found.counts[20][20] == 9


@pytest.mark.parametrize(
    ("truths", "said"),
    [
        ([None] * 12, "no row can be held against the column 'truth': it is null, empty or missing in every row"),
        ([["a"]] * 12, "no row can be held against the column 'truth': the truth of row 0 of rows.jsonl has a list"),
        ([0.5] * 12, "has a number in the place of a label; a label is a text, a whole number, true or false"),
    ],
)
def test_what_is_no_truth_is_said(tmp_path: Path, truths: list[Any], said: str) -> None:
    assert said in problem(classified(tmp_path, truths))


def test_a_single_value_that_is_no_truth_is_counted(tmp_path: Path) -> None:
    found = truth_facts(classified(tmp_path, [*TRUTH[:11], {"a": 1}]))
    assert (found.num_rows, found.num_unusable) == (11, 1)
    assert found.unusable.startswith("the truth of row 11 of rows.jsonl has an object in the place of a label")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".arrow"])
def test_a_column_that_is_not_there_is_said(tmp_path: Path, ending: str) -> None:
    said = problem(classified(tmp_path, ending=ending), "tuth")
    assert "neither the results nor the input has a column 'tuth'; carried columns: id" in said


def test_an_input_that_is_gone_is_said(tmp_path: Path) -> None:
    output = classified(tmp_path)
    (tmp_path / "in/rows.jsonl").unlink()
    said = problem(output)
    assert "the column 'truth' is not in the results, and cannot be read from the input again" in said
    assert "carry the column (input.columns)" in said


def test_an_input_that_was_changed_is_no_truth(tmp_path: Path) -> None:
    output = classified(tmp_path)
    write_rows(tmp_path / "in/rows.jsonl", [{"id": row, "body": "y", "truth": "a"} for row in range(12)])
    assert "has changed since it was planned" in problem(output)


def test_results_without_labels_are_refused(tmp_path: Path) -> None:
    made = classified(tmp_path, task=GenerateTask(prompt="{{ body }}"), results={"text": ["x"] * 12})
    assert "the results of this task of the kind generate have no labels" in problem(made)
    regression = {"label": [None] * 12, "score": SCORES, "scores": [{"LABEL_0": one} for one in SCORES]}
    made = classified(tmp_path / "regression", results=regression)
    assert "a regression has values and no labels" in problem(made)
    one_class = {"label": ["spam"] * 12, "score": SCORES, "scores": [{"spam": one} for one in SCORES]}
    made = classified(tmp_path / "one", results=one_class)
    assert "the checkpoint has one class, 'spam'" in problem(made)


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_page_and_the_numbers_hold_what_was_found(tmp_path: Path) -> None:
    output = classified(tmp_path, truth="truth")
    result = invoke("report", output.path)
    assert (result.exit_code, result.stdout.strip()) == (0, f"{output.path}/report.html")
    numbers = json.loads((tmp_path / "out/report.json").read_text())["truth"]
    assert (numbers["accuracy"], numbers["labels"][0]["recall"]) == (pytest.approx(7 / 12), 0.75)
    page = (tmp_path / "out/report.html").read_text()
    for said in ("Against the truth in truth", "<b>0.583</b><span>accuracy", "Expected calibration error 0.377"):
        assert said in page
    assert NASTY not in page
    assert "&lt;script&gt;" in page


def test_the_argument_goes_before_what_the_run_was_planned_with(tmp_path: Path) -> None:
    output = classified(tmp_path, truth="truth")
    assert invoke("report", output.path, "--truth", "id").exit_code == 0
    assert json.loads((tmp_path / "out/report.json").read_text())["truth"]["column"] == "id"


def test_the_spec_that_is_given_says_the_truth_and_how_its_storage_is_reached(
    tmp_path: Path, s3_options: dict[str, Any]
) -> None:
    """The input is in a bucket, whose options no run keeps."""
    place = f"bucket/{tmp_path.name}/rows.jsonl"
    rows = [{"id": row, "body": f"text {row}", "truth": truth} for row, truth in enumerate(TRUTH)]
    s3fs.S3FileSystem(**s3_options).pipe(place, "".join(json.dumps(row) + "\n" for row in rows).encode())
    output = classified(tmp_path, paths=[f"s3://{place}"], input_options=s3_options)
    spec = {
        "name": "made", "model": {"path": "nowhere"}, "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [f"s3://{place}"], "columns": ["id"], "storage_options": s3_options},
        "output": {"path": output.path}, "report": {"truth": "truth"},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert invoke("report", output.path, "--spec", tmp_path / "spec.yaml").exit_code == 0
    found = json.loads((tmp_path / "out/report.json").read_text())["truth"]
    assert found["accuracy"] == pytest.approx(7 / 12)
    assert found["disagreements"][0]["inputs"]["body"] == "text 7"


def test_a_truth_that_cannot_be_used_ends_with_2_and_the_rest_is_reported(tmp_path: Path) -> None:
    output = classified(tmp_path)
    result = invoke("report", output.path, "--truth", "tuth")
    assert result.exit_code == 2
    assert result.stdout.strip() == f"{output.path}/report.html"
    assert "report.truth: neither the results nor the input has a column 'tuth'" in result.stderr
    assert "neither the results nor the input has a column" in (tmp_path / "out/report.html").read_text()


class Structure(HTMLParser):
    """What a page offers to whoever does not see it: captions of tables, scopes of headers, text in pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.found["th with scope"] += tag == "th" and dict(attrs).get("scope") in ("col", "row")
        self.found["figure text"] += tag == "text" and self.depth > 0
        self.depth += tag == "figure"

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "figure"


@pytest.mark.parametrize("form", ["label", "spans"])
def test_tables_and_plots_of_the_page_can_be_read_without_seeing_them(tmp_path: Path, form: str) -> None:
    output = classified(tmp_path, truth="truth") if form == "label" else spans_run(tmp_path)
    write_report(output, truth="truth")
    page = (tmp_path / "out/report.html").read_text()
    structure = Structure()
    structure.feed(page)
    found = structure.found
    assert found["table"] == found["caption"] >= 5
    assert found["th"] == found["th with scope"]
    assert found["figure text"] > 10
    assert re.search(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{ --paper: #111827", page)
    styled = page.split("</style>")[0].split("}\n")
    rules = [rule for rule in styled if ":root" not in rule and re.search(r"[^-]color: #|background: #", rule)]
    assert [rule for rule in rules if "figure svg" not in rule] == []  # plots keep a light paper of their own


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_labels_that_no_row_got_stand_in_the_table_with_0(tmp_path: Path, format: OutputFormat) -> None:
    facts = gather(RunOutput.open(classified(tmp_path, format=format, prefix="out_"), input_options={}))
    assert [(one.label, one.count, one.share) for one in facts.tasks[0].labels] == [
        ("a", 5, pytest.approx(5 / 12)), ("c", 4, pytest.approx(4 / 12)), ("b", 3, pytest.approx(3 / 12)), ("never", 0, 0),
    ]  # fmt: skip
    assert facts.tasks[0].num_labels == 4
    assert facts.tasks[0].labels[-1].mean_score is None


def test_only_the_most_frequent_labels_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    scores = {f"n{number}": 1 / 80 for number in range(80)}
    results = {"label": ["n7"] * 12, "score": [0.5] * 12, "scores": [scores] * 12}
    output = classified(tmp_path, results=results)
    facts = gather(RunOutput.open(output, input_options={}))
    assert (len(facts.tasks[0].labels), facts.tasks[0].num_labels, facts.tasks[0].labels[0].label) == (50, 80, "n7")
    write_report(output)
    assert "The 50 most frequent of 80." in (tmp_path / "out/report.html").read_text()


def test_tags_that_no_span_got_stand_in_the_table_with_0(tmp_path: Path, tiny_checkpoint: CheckpointMaker) -> None:
    names = {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
    folder = tiny_checkpoint(
        "token-classification", id2label=names, label2id={name: tag for tag, name in names.items()}
    )
    span = {"start": 0, "end": 3, "label": "PER", "text": "Ann", "score": 0.5}
    output = classified(
        tmp_path, task=SpansTask(text="{{ body }}"), results={"spans": [[span]] * 12}, model=str(folder)
    )
    facts = gather(RunOutput.open(output, input_options={}))
    assert [(one.label, one.count) for one in facts.tasks[0].labels] == [("PER", 12), ("LOC", 0)]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_rows_that_another_task_alone_answered_are_not_judged(tmp_path: Path, format: OutputFormat) -> None:
    """The first row is one of them: what the others hold tells what the labels are."""
    alone = truth_facts(classified(tmp_path / "alone", [None, *TRUTH[1:]]))
    task = ClassifyTask(text="{{ body }}")
    results = {
        "team_label": [None, *GIVEN[1:]],
        "team_score": [None, *SCORES[1:]],
        "team_scores": [None, *(scores_of(*pair) for pair in list(zip(GIVEN, SCORES, strict=True))[1:])],
        "other_label": GIVEN,
        "other_score": SCORES,
        "other_scores": [scores_of(*pair) for pair in zip(GIVEN, SCORES, strict=True)],
        "silent_label": [None] * 12,
        "silent_score": [None] * 12,
        "silent_scores": [None] * 12,
    }
    tasks = SeveralTask(tasks={"team": task, "other": task, "silent": task}, partial="keep")
    output = classified(tmp_path / "several", task=tasks, results=results, format=format)
    facts = gather(RunOutput.open(output, input_options={}), truth={"team": "truth", "silent": "truth"})
    team, _, silent = facts.tasks
    assert team.truth is not None
    assert team.truth.num_rows == alone.num_rows == 11
    assert (team.truth.accuracy, figures(team.truth)) == (alone.accuracy, figures(alone))
    assert [(one.label, one.count) for one in team.labels] == [("a", 4), ("c", 4), ("b", 3), ("never", 0)]
    assert (silent.truth, silent.labels) == (None, [])
    assert silent.truth_problem is not None
    assert "has answered no row" in silent.truth_problem
    write_report(output, truth={"team": "truth", "other": "truth"}, given=["other=id"])
    found = json.loads((tmp_path / "several/out/report.json").read_bytes())["tasks"]
    assert [task["truth"] and task["truth"]["column"] for task in found] == ["truth", "id", None]


def test_a_report_without_a_truth_says_nothing_of_one(tmp_path: Path) -> None:
    output = classified(tmp_path)
    write_report(output)
    assert "Against the truth" not in (tmp_path / "out/report.html").read_text()
    assert "report" not in json.loads((tmp_path / "out/run.json").read_text())["spec"]
