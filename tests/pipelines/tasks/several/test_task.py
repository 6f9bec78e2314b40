"""Several tasks of a row: their requests together, their columns side by side, and what becomes of a row that some fail on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.work import EngineAnswer, OnePassAnswer, Refused
from models.engine.scheduling.request import Output
from models.text.tokenizer import Tokenizer
from pipelines.errors import TaskError
from pipelines.rows.rows import Answers, FinishedUnit, PreparedUnit
from pipelines.rows.set_apart import kept_answers_of
from pipelines.task_base.requests import work_of
from pipelines.task_base.task import Task
from pipelines.tasks.embed import EmbedTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.kinds import recorded_parts
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.several.partial import Partial
from pipelines.tasks.several.task import SeveralTask
from pipelines.unit_steps.finish import finish, result_columns
from pipelines.unit_steps.prepare import Preparer
from tests.helpers.pipelines.making import make_facts, make_job, make_rows, word_tokenizer

TEAM = LabelsTask(text="{{ body }}", question="w1", labels=("w7", "w8"))
URGENT = LabelsTask(text="{{ urgent }}", labels=("w5", "w6"))
REPLY = GenerateTask(prompt="{{ body }}")
FACTS = replace(make_facts("causal", max_model_len=60), own=(None, None, None))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"))


def several(partial: Partial = "drop", **changes: Task) -> SeveralTask:
    tasks: dict[str, Task] = {"team": TEAM, "urgent": URGENT, "reply": replace(REPLY, sampling=GREEDY_8), **changes}
    return SeveralTask(tasks=tasks, partial=partial)


GREEDY_8 = replace(REPLY.sampling, max_tokens=8)
ROWS: dict[str, Any] = {"body": ["w1 w2", "w3", "w4"], "urgent": ["w1", "", "w2"]}


def prepared(task: Task, tokenizer: Tokenizer, columns: dict[str, Any] = ROWS) -> PreparedUnit:
    facts = FACTS if isinstance(task, SeveralTask) else replace(FACTS, own=None)
    return Preparer(make_job(task), tokenizer, facts).prepare(
        make_rows(pa.table(columns)), relative_path="rows.parquet"
    )


def labelled(first: float) -> OnePassAnswer:
    return OnePassAnswer(values=np.log(np.array([first, 1 - first], np.float32)), num_cached_tokens=2)


def generated(text: str) -> Output:
    return Output(text=text, token_ids=[4, 5], finish_reason="stop", num_prompt_tokens=3, num_cached_tokens=1)


def answered(unit: PreparedUnit) -> list[EngineAnswer]:
    return [generated(f"row {one.row}") if one.task == 2 else labelled(0.9 - one.task / 2) for one in unit.requests]


def finished(task: SeveralTask, unit: PreparedUnit, answers: Sequence[EngineAnswer]) -> FinishedUnit:
    return finish(make_job(task), FACTS, unit, Answers(results=answers, seconds=1.0))


def test_requests_are_those_of_each_task_with_its_number(tokenizer: Tokenizer) -> None:
    both = {"body": ["w1 w2", "w4"], "urgent": ["w1", "w2"]}
    unit = prepared(several(), tokenizer, both)
    assert [(one.row, one.task) for one in unit.requests] == [(row, task) for row in range(2) for task in range(3)]
    for number, task in enumerate(several().tasks.values()):
        alone = prepared(task, tokenizer, both).requests
        own = [one for one in unit.requests if one.task == number]
        assert [one.token_ids.tolist() for one in own] == [one.token_ids.tolist() for one in alone]
    work = work_of("unit", unit.requests)
    assert work.task_numbers.tolist() == [0, 1, 2, 0, 1, 2]
    assert [half.task_numbers.tolist() for half in work.halves()] == [[0, 1, 2], [0, 1, 2]]
    assert work.picked([2, 1]).task_numbers.tolist() == [2, 1]


def test_tasks_of_a_row_do_not_share_their_draws(tokenizer: Tokenizer) -> None:
    same = several(team=REPLY, urgent=REPLY)
    seeds = [one.seed for one in prepared(same, tokenizer).requests]
    assert len(set(seeds)) == len(seeds) == 9


def test_columns_stand_side_by_side_under_the_tasks_names(tokenizer: Tokenizer) -> None:
    task = several()
    unit = prepared(task, tokenizer, {"body": ["w1 w2", "w4"], "urgent": ["w1", "w2"]})
    found = finished(task, unit, answered(unit)).results.to_pylist()
    assert [field.name for field in result_columns(make_job(task), FACTS)] == list(found[0])
    assert found[0] == {
        "team_label": "w7",
        "team_score": pytest.approx(0.9),
        "team_scores": [("w7", pytest.approx(0.9)), ("w8", pytest.approx(0.1))],
        "urgent_label": "w6",
        "urgent_score": pytest.approx(0.6),
        "urgent_scores": [("w5", pytest.approx(0.4)), ("w6", pytest.approx(0.6))],
        "reply_text": "row 0",
        "reply_finish_reason": "stop",
        "finish_reason": None,
        "prompt_tokens": sum(len(one.token_ids) for one in unit.requests if one.row == 0),
        "completion_tokens": 2,
    }


@pytest.mark.parametrize("partial", ["drop", "keep"])
def test_a_row_that_one_task_fails_on(tokenizer: Tokenizer, partial: Partial) -> None:
    """Row 1 has no text for `urgent`; of row 2 `team` is refused by the engine."""
    task = several(partial)
    unit = prepared(task, tokenizer)
    answers = [
        Refused(error="too much") if (unit.row_numbers[one.row], one.task) == (2, 0) else answer
        for one, answer in zip(unit.requests, answered(unit), strict=True)
    ]
    found = finished(task, unit, answers)
    letters = {letter.row: (letter.kind, letter.message, letter.tasks) for letter in found.failures}
    if partial == "drop":
        assert found.results.num_rows == 1
        assert letters == {
            1: ("empty_text", "task urgent: the text is empty", ("urgent",)),
            2: ("refused", "task team: too much", ("team",)),
        }
        return
    assert letters == {}
    rows = found.results.to_pylist()
    assert [row["urgent_label"] for row in rows] == ["w6", None, "w6"]
    assert [row["team_score"] for row in rows] == [pytest.approx(0.9), pytest.approx(0.9), None]
    assert [row["reply_text"] for row in rows] == ["row 0", "row 1", "row 2"]
    assert [row["errors"] for row in rows] == [
        None,
        [("urgent", "empty_text: the text is empty")],
        [("team", "refused: too much")],
    ]


def test_a_row_that_every_task_fails_on_is_a_dead_letter_that_names_them(tokenizer: Tokenizer) -> None:
    task = several("keep")
    unit = prepared(task, tokenizer, {"body": ["", "w1"], "urgent": ["", "w2"]})
    [letter] = unit.failures
    assert letter.tasks == ("team", "urgent", "reply")
    assert (
        letter.message
        == "task team: the text is empty; task urgent: the text is empty; task reply: the prompt has no tokens"
    )


def test_a_row_that_is_set_apart_takes_what_its_tasks_have_along(tokenizer: Tokenizer) -> None:
    task = several("keep")
    unit = prepared(task, tokenizer)
    keep = np.array([False, True, True])
    kept, answers = kept_answers_of(unit, Answers(results=answered(unit), seconds=1.0), keep)
    found = finish(make_job(task), FACTS, kept, answers).results.to_pylist()
    assert [row["errors"] and dict(row["errors"]) for row in found] == [
        {"urgent": "empty_text: the text is empty"},
        None,
    ]


def test_what_is_calibrated_by_a_prior_is_told_apart(tokenizer: Tokenizer) -> None:
    task = several(urgent=replace(URGENT, calibrate="prior"), team=replace(TEAM, calibrate="prior"))
    encoder = task.encoder(tokenizer, FACTS)
    assert [piece.task for piece in encoder.trial] == [0, 0, 0, 1, 1, 1]
    numbers = task.found_in([labelled(0.8)] * 3 + [labelled(0.3)] * 3)
    known = task.with_found(numbers).tasks
    priors = [known[name].log_prior for name in ("team", "urgent")]  # type: ignore[attr-defined]
    assert np.exp(priors) == pytest.approx(np.array([[0.8, 0.2], [0.3, 0.7]]), abs=1e-6)
    assert known["reply"] == task.tasks["reply"]


def test_an_error_is_of_the_place_where_its_task_stands(tokenizer: Tokenizer) -> None:
    long = replace(REPLY, sampling=replace(REPLY.sampling, max_tokens=100))
    with pytest.raises(TaskError, match=r"^tasks\.reply\.sampling\.max_tokens: was 100"):
        several(reply=long).encoder(tokenizer, FACTS)
    questions = replace(several(), at="task.questions", shared=frozenset({"text"}))
    assert dict(questions.templates()) == {
        "task.text": "{{ urgent }}",
        "task.questions.team.question": "w1",
        "task.questions.reply.prompt": "{{ body }}",
    }


def test_a_record_tells_the_tasks_and_what_becomes_of_rows() -> None:
    task = several(vector=EmbedTask(text="{{ body }}"))
    values = task.recorded()
    assert values["tasks"] == {name: one.recorded() for name, one in task.tasks.items()}
    assert recorded_parts(values) == {name: type(one) for name, one in task.tasks.items()}
    assert values != replace(task, partial="keep").recorded()
    assert recorded_parts(TEAM.recorded()) == {"": LabelsTask}


def test_files_and_columns_of_all_tasks_are_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = several().encoder(tokenizer, FACTS)
    assert encoder.columns == {"body", "urgent"}
    assert several().own_files(tmp_path) == []
