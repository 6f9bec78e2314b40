"""Faults of our own, put into every stage: the rows that meet them are dead letters, and all others come out as if they were not there."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.graph.finish_stage
import pipelines.ledger.unit_files
from actors.work import OnePassAnswer
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.errors import InternalError, SourceError
from pipelines.formats.json_values import dump_json
from pipelines.formats.schema import Columns
from pipelines.graph.finish_stage import FinishAndCommit
from pipelines.graph.outcomes import Committed, UnitOutcome
from pipelines.graph.read_stage import ReadSettings, read_and_prepare
from pipelines.input_formats import csv_format, jsonl_format, tables
from pipelines.job import Job
from pipelines.ledger.commit import Committer
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.permit import Permit
from pipelines.rows.blocks import ANSWERS, OUTCOME, WORK, packed, value_in, with_packed
from pipelines.rows.row_guard import describe_fault, fault_name, faulty_rows, guarded
from pipelines.rows.rows import Answers, FinishedUnit
from pipelines.rows.streak import Fault, FaultStreak
from pipelines.rows.unit import UnreadableUnit
from pipelines.task_base.facts import TaskFacts
from pipelines.tasks.classify import ClassifyTask
from pipelines.templates.templates import RowTemplate
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader
from tests.helpers.pipelines.fake_engines import logits
from tests.helpers.pipelines.running import job_of, rows_in

pytestmark = pytest.mark.usefixtures("prepared_here")

POISON = "POISON"
FAULTY = [3, 17, 18, 39]
NUM_ROWS, UNIT_ROWS = 40, 8

Arm = Callable[[pytest.MonkeyPatch], None]


class TrippedError(Exception):
    """No exception that any of our code knows."""


def trip_on(value: object) -> None:
    if POISON in str(value):
        raise TrippedError("it tripped")


@pytest.fixture(scope="module")
def classifier(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("sequence-classification")


def bodies(faulty: Sequence[int]) -> list[str]:
    return [POISON if row in faulty else f"order {row} is late" for row in range(NUM_ROWS)]


def write_input(path: Path, faulty: Sequence[int]) -> Path:
    table = pa.table({"id": list(range(NUM_ROWS)), "body": bodies(faulty)})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        path.write_text("id,body\n" + "".join(f"{row},{body}\n" for row, body in enumerate(bodies(faulty))))
    else:
        path.write_text("".join(f'{{"id": {row}, "body": "{body}"}}\n' for row, body in enumerate(bodies(faulty))))
    return path


def outcomes_of(job: Job) -> list[UnitOutcome]:
    """A run of a job in this process: every stage as Ray would call it, with a fake engine between them."""
    folder = Path(job.model.path)
    tokenizer = Tokenizer.from_pretrained(folder)
    facts = TaskFacts.from_config(ModelConfig.from_pretrained(folder), tokenizer, None)
    with Ledger.open(job, {"unit_rows": 3}) as ledger:
        columns = Columns(carried=job.input.columns, required=frozenset({"body"}))
        sources = list_sources(job.input)
        record = ledger.write_plan(lambda sink: plan_units(sources, job.input, columns, unit_rows=UNIT_ROWS, sink=sink))
        committer = ledger.committer()
        settings = ReadSettings(job=job, reader=UnitReader(schema=record.schema), permit=Permit(committer=committer))
        units = tuple(ledger.pending_units(ledger.survey()))
        conclude = FinishAndCommit(job=job, facts=facts, committer=committer)
        blocks = read_and_prepare(pickle.dumps(settings), pickle.dumps(units))
        return [value_in(conclude(answered(block)), OUTCOME) for block in blocks]


def answered(block: pa.Table) -> pa.Table:
    work = value_in(block, WORK)
    answers = (
        None
        if work is None
        else Answers(results=[OnePassAnswer(values=logits(ids)) for ids in work.requests()], seconds=1.0)
    )
    return with_packed(block, WORK, ANSWERS, None if answers is None else packed(answers))


def tripping(patch: pytest.MonkeyPatch, where: object, name: str, seen: Callable[..., object]) -> None:
    """Has a function trip on what `seen` picks from its arguments."""
    function = getattr(where, name)

    def tripping_function(*arguments: Any, **more: Any) -> Any:
        trip_on(seen(*arguments))
        return function(*arguments, **more)

    patch.setattr(where, name, tripping_function)


def in_jsonl(patch: pytest.MonkeyPatch) -> None:
    tripping(patch, jsonl_format, "read_jsonl", lambda lines, *rest: lines)


def in_csv(patch: pytest.MonkeyPatch) -> None:
    tripping(patch, csv_format, "read_csv", lambda text, *rest: text)


def in_parquet(patch: pytest.MonkeyPatch) -> None:
    tripping(patch, tables, "conform", lambda table, *rest: table.to_pylist())


def in_templates(patch: pytest.MonkeyPatch) -> None:
    tripping(patch, RowTemplate, "render", lambda self, row: row)


def in_tokenizing(patch: pytest.MonkeyPatch) -> None:
    tripping(patch, Tokenizer, "encode_batch", lambda self, texts: texts)


def in_finishing(patch: pytest.MonkeyPatch) -> None:
    tripping(
        patch, pipelines.graph.finish_stage, "finish", lambda job, facts, prepared, answers: prepared.rows.as_json()
    )


def in_writing_lines(patch: pytest.MonkeyPatch) -> None:
    tripping(patch, pipelines.ledger.unit_files, "dump_json", lambda value: value)


STAGES: Mapping[str, tuple[Arm, str]] = {
    "read jsonl": (in_jsonl, "rows.jsonl"),
    "read csv": (in_csv, "rows.csv"),
    "read parquet": (in_parquet, "rows.parquet"),
    "prepare": (in_templates, "rows.jsonl"),
    "prepare together": (in_tokenizing, "rows.parquet"),
    "finish": (in_finishing, "rows.csv"),
    "commit": (in_writing_lines, "rows.jsonl"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_row_that_trips_a_stage_is_a_dead_letter_and_all_others_are_untouched(
    stage: str, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, name = STAGES[stage]
    for folder, faulty in (("smooth", ()), ("faulty", FAULTY)):
        (tmp_path / folder).mkdir()
        corpus = write_input(tmp_path / folder / name, faulty)
        job = job_of(ClassifyTask(text="{{ body }}"), model=classifier, corpus=corpus, out=tmp_path / folder / "out")
        with monkeypatch.context() as patch:
            if faulty:
                arm(patch)
            outcomes = outcomes_of(job)
        assert all(isinstance(outcome, Committed) for outcome in outcomes)
    letters = rows_in(tmp_path / "faulty/out", "errors")
    assert [letter["row"] for letter in letters] == FAULTY
    assert {letter["kind"] for letter in letters} == {"internal_error"}
    assert all("pipelines/" in letter["message"] and ": TrippedError: " in letter["message"] for letter in letters)
    smooth = [row for row in rows_in(tmp_path / "smooth/out") if int(row["id"]) not in FAULTY]
    assert rows_in(tmp_path / "faulty/out") == smooth


def test_a_stage_that_no_row_trips_fails_the_unit_and_no_other(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Committer.commit

    def tripping(self: Committer, finished: FinishedUnit) -> Any:
        if finished.unit.index == 2:
            raise TrippedError("the unit")
        return commit(self, finished)

    monkeypatch.setattr(Committer, "commit", tripping)
    corpus = write_input(tmp_path / "rows.jsonl", ())
    job = job_of(ClassifyTask(text="{{ body }}"), model=classifier, corpus=corpus, out=tmp_path / "out")
    outcomes = outcomes_of(job)
    failed = outcomes.pop(2)
    assert isinstance(failed, UnreadableUnit)
    assert failed.is_fault
    assert "pipelines/graph/finish_stage.py" in failed.message
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert [row["id"] for row in rows_in(tmp_path / "out")] == [*range(16), *range(24, 40)]


def test_a_fault_between_units_of_one_pass_fails_one_of_them(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units of one row group are read in one pass, which a fault ends."""
    rows_of = tables._fit

    def tripping(unit: Any, table: pa.Table, schema: pa.Schema) -> Any:
        if unit.index == 1 and table.num_rows > 1:  # no row alone
            raise TrippedError
        return rows_of(unit, table, schema)

    monkeypatch.setattr(tables, "_fit", tripping)
    corpus = write_input(tmp_path / "rows.parquet", ())
    job = job_of(ClassifyTask(text="{{ body }}"), model=classifier, corpus=corpus, out=tmp_path / "out")
    outcomes = outcomes_of(job)
    failed = outcomes.pop(1)
    assert isinstance(failed, UnreadableUnit)
    assert failed.is_fault
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert [row["id"] for row in rows_in(tmp_path / "out")] == [*range(8), *range(16, 40)]


def test_a_dead_letter_that_cannot_be_shown_still_says_which_row_it_is(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_writing_lines(monkeypatch)
    corpus = write_input(tmp_path / "rows.parquet", [5])
    job = job_of(ClassifyTask(text="{{ nothing }}"), model=classifier, corpus=corpus, out=tmp_path / "out")
    outcomes_of(job)
    letter = rows_in(tmp_path / "out", "errors")[5]
    assert (letter["row"], letter["kind"]) == (5, "missing_value")
    assert letter["input"] == {"_unshown": "TrippedError"}


def test_what_is_meant_for_the_run_passes_through() -> None:
    def fail(faulty: object) -> None:
        raise SourceError("the disk is gone")

    with pytest.raises(SourceError):
        guarded(3, fail, fail)


@pytest.mark.parametrize("faulty", [[], [0], [6], [0, 1, 2, 3, 4, 5, 6], [2, 5]])
def test_faulty_rows_are_found_by_halving(faulty: list[int]) -> None:
    def probe(keep: "np.ndarray[Any, Any]") -> None:
        if keep[faulty].any():
            raise TrippedError

    assert list(faulty_rows(7, probe)) == faulty


def test_a_fault_has_one_name_whatever_it_says() -> None:
    texts = []
    for value in ("a: b", "c"):
        try:
            dump_json({TrippedError: value})
        except TypeError as error:
            texts.append(describe_fault(error))
    names = {fault_name(text) for text in texts}
    assert len(names) == 1
    assert names.pop().endswith(": TypeError")


def fault(name: str, row: int = 0) -> Fault:
    return Fault(name=name, message=f"{name}: oh", path="/corpus/rows.jsonl", row=row)


def test_three_units_in_a_row_with_one_fault_end_the_run() -> None:
    streak = FaultStreak()
    streak.add([fault("a"), fault("b")])
    streak.add([fault("a")])
    with pytest.raises(InternalError, match=r"the last in /corpus/rows\.jsonl, row 7: a: oh"):
        streak.add([fault("b"), fault("a", row=7)])


def test_faults_apart_from_one_another_do_not_end_the_run() -> None:
    streak = FaultStreak()
    for faults in ([fault("a")], [fault("a")], [], [fault("a")], [fault("b")], [fault("a")], [fault("a")]):
        streak.add(faults)
