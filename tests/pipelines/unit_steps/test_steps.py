"""A unit on its way through the steps of a cascade: what is kept, what goes on, and how it comes together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.work import EngineAnswer, OnePassAnswer, Refused
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.graph.hand_over_stage import HandOver
from pipelines.graph.outcomes import LeftOut
from pipelines.job import EngineSpec, Escalation, Job, ModelSpec
from pipelines.kinds import INTERNAL_ERROR, NOT_FINITE, REFUSED, TOO_LONG
from pipelines.rows.blocks import ANSWERS, KEPT, PREPARED, ROWS, WORK, block_of, packed_in, value_in
from pipelines.rows.rows import Answers, FinishedUnit, PreparedUnit, RowFailure, StepCounts, UnitRows
from pipelines.task_base.facts import TaskFacts
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.unit_steps.finish import result_columns
from pipelines.unit_steps.prepare import Preparer
from pipelines.unit_steps.steps import KeptRows, kept_rows, left_of, merged, num_left, sure_rows
from pipelines.unit_steps.steps_alike import check_steps
from tests.helpers.pipelines.making import make_facts, make_job, make_rows, word_tokenizer

TASK = ClassifyTask(text="{{ body }}")
FACTS = make_facts("sequence-classification", names=("no", "yes"), max_model_len=64)
SHORT = make_facts("sequence-classification", names=("no", "yes"), max_model_len=6)
Model = Callable[[str], EngineAnswer | RowError]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def further(below: float | None) -> Escalation:
    return Escalation(below=below, model=ModelSpec(path="/m/large"), engine=EngineSpec())


def job_with(*bounds: float) -> Job:
    return replace(make_job(TASK, prefix="r_"), cascade=tuple(map(further, bounds)))


def says(logit: float) -> OnePassAnswer:
    """An answer of `yes` with the odds of a logit; `no` if it is below 0."""
    return OnePassAnswer(values=np.array([0.0, logit], np.float32), num_cached_tokens=1)


def sure_of(logit: float) -> float:
    return float(1 / (1 + np.exp(-abs(logit))))


def answered(
    rows: UnitRows, job: Job, facts: TaskFacts, tokenizer: Tokenizer, model: Model
) -> tuple[PreparedUnit, Answers]:
    prepared = Preparer(job, tokenizer, facts).prepare(rows, relative_path="x")
    texts = [tokenizer.decode(request.token_ids.tolist()) for request in prepared.requests]
    return prepared, Answers(results=[model(text) for text in texts], seconds=1.5)


def through(
    rows: UnitRows, job: Job, tokenizer: Tokenizer, models: Sequence[Model], facts: Sequence[TaskFacts] | None = None
) -> FinishedUnit:
    """The unit through all steps of a job."""
    kept: list[KeptRows] = []
    steps = list(zip(job.steps, facts or [FACTS] * len(models), models, strict=True))
    for (step, of_step, model), bound in zip(steps, job.bounds, strict=False):
        prepared, answers = answered(left_of(rows, kept), step, of_step, tokenizer, model)
        sure = sure_rows(step, of_step, prepared, answers)
        kept.append(kept_rows(sure, num_left(rows, kept), until=bound))
    step, of_step, model = steps[-1]
    prepared, answers = answered(left_of(rows, kept), step, of_step, tokenizer, model)
    last = sure_rows(step, of_step, prepared, answers).finished
    return merged(step, [f"m{number}" for number in range(len(models))], rows, kept, prepared, last)


def rows_of(*bodies: str | None) -> UnitRows:
    """Rows 10 and on; row 5 could not be read."""
    failure = RowFailure(row=5, kind="invalid_value", message="is no row", input={})
    return make_rows(pa.table({"body": pa.array(bodies, pa.string())}), first_row=10, failures=(failure,))


def test_each_row_has_the_first_answer_that_is_sure_enough_in_the_order_of_the_input(tokenizer: Tokenizer) -> None:
    small = {"w1": says(3.0), "w2": says(0.1), "w3": says(-4.0), "w4": says(-0.2)}
    job = job_with(sure_of(3.0))  # w1's own score: at least that much is enough
    unit = through(rows_of("w1", "w2", "w3", "w4"), job, tokenizer, [small.__getitem__, lambda text: says(-1.0)])
    rows = unit.results.to_pylist()
    assert [row["r_model"] for row in rows] == ["m0", "m1", "m0", "m1"]
    assert [row["r_label"] for row in rows] == ["yes", "no", "no", "no"]
    assert [row["r_score"] for row in rows] == pytest.approx([sure_of(3), sure_of(1), sure_of(4), sure_of(1)], abs=1e-6)
    assert [row["body"] for row in unit.carried.as_json()] == ["w1", "w2", "w3", "w4"]
    assert unit.results.schema.names == [field.name for field in result_columns(job, FACTS)]
    assert list(unit.results.schema) == result_columns(job, FACTS)
    assert [failure.row for failure in unit.failures] == [5]
    assert unit.steps == (
        StepCounts(num_asked=4, num_kept=2, prompt_tokens=4, cached_tokens=4),
        StepCounts(num_asked=2, num_kept=2, prompt_tokens=2, cached_tokens=2),
    )
    assert (unit.prompt_tokens, unit.cached_tokens, unit.seconds) == (6, 6, 3.0)


def test_what_a_model_cannot_answer_goes_on_and_only_the_last_error_counts(tokenizer: Tokenizer) -> None:
    bad: dict[str, EngineAnswer | RowError] = {
        "w1": says(9.0),
        "w2": Refused(error="not by me"),
        "w3": OnePassAnswer(values=np.array([np.nan, 0], np.float32)),
        "w4": RowError(INTERNAL_ERROR, "a fault of ours"),
    }
    large: dict[str, EngineAnswer | RowError] = {
        "w2": says(1.0),
        "w3": Refused(error="nor by me"),
        "w4": says(2.0),
        " ".join(["w9"] * 10): says(3.0),
    }
    rows = rows_of("w1", "w2", "w3", "w4", None, " ".join(["w9"] * 10), " ".join(["w8"] * 80))
    unit = through(rows, job_with(0.9), tokenizer, [bad.__getitem__, large.__getitem__], [SHORT, FACTS])
    answers = {
        int(number): row["r_model"] for number, row in zip([10, 11, 13, 15], unit.results.to_pylist(), strict=True)
    }
    assert answers == {10: "m0", 11: "m1", 13: "m1", 15: "m1"}
    assert {failure.row: failure.kind for failure in unit.failures} == {
        5: "invalid_value", 12: REFUSED, 14: "null_value", 16: TOO_LONG,
    }  # fmt: skip
    assert next(failure.message for failure in unit.failures if failure.row == 12) == "nor by me"
    assert "64" in next(failure.message for failure in unit.failures if failure.row == 16), "the last model's limit"
    assert [step.num_asked for step in unit.steps] == [7, 6]
    assert NOT_FINITE not in {failure.kind for failure in unit.failures}


def test_three_models_each_take_what_those_before_them_leave(tokenizer: Tokenizer) -> None:
    logits = {"w1": (3.0, 0.0, 0.0), "w2": (0.5, 3.0, 0.0), "w3": (0.5, -0.5, -0.1), "w4": (0.5, 0.5, 4.0)}
    models = [lambda text, step=step: says(logits[text][step]) for step in range(3)]
    unit = through(rows_of(*logits), job_with(0.9, 0.9), tokenizer, models)
    assert unit.results["r_model"].to_pylist() == ["m0", "m1", "m2", "m2"]
    assert unit.results["r_label"].to_pylist() == ["yes", "yes", "no", "yes"]
    assert [(step.num_asked, step.num_kept) for step in unit.steps] == [(4, 1), (3, 1), (2, 2)]


def handed(rows: UnitRows, tokenizer: Tokenizer, until: float) -> pa.Table:
    """The block behind a hand-over whose next preparer cannot be made: there is no model there."""
    step = job_with(until).steps[0]
    prepared, answers = answered(rows, step, FACTS, tokenizer, lambda text: says(3.0))
    block = block_of(**{PREPARED: prepared, ROWS: rows, KEPT: None, ANSWERS: answers})
    return HandOver(read=b"none", step=0, job=step, facts=FACTS, until=until)(block)


def test_a_unit_of_which_nothing_is_left_goes_on_without_work(tokenizer: Tokenizer) -> None:
    block = handed(rows_of("w1", "w2"), tokenizer, 0.5)
    assert packed_in(block, WORK) is None
    assert value_in(block, PREPARED).rows.num_rows == 0
    assert value_in(block, PREPARED).failures == ()
    (kept,) = value_in(block, KEPT)
    assert kept.row_numbers.tolist() == [10, 11]


def test_a_fault_of_ours_over_no_row_in_particular_is_the_units(tokenizer: Tokenizer) -> None:
    rows, step = rows_of("w1"), job_with(0.5).steps[0]
    prepared, _ = answered(rows, step, FACTS, tokenizer, lambda text: says(3.0))
    block = block_of(**{PREPARED: prepared, ROWS: rows, KEPT: None, ANSWERS: Answers(results=(), seconds=0.0)})
    passed = HandOver(read=b"", step=0, job=step, facts=FACTS, until=0.5)(block)
    assert value_in(passed, PREPARED).is_fault
    assert packed_in(passed, WORK) is None


def test_what_was_not_begun_passes_through() -> None:
    block = block_of(**{PREPARED: LeftOut(), ROWS: None, KEPT: None, ANSWERS: None})
    job = job_with(0.5).steps[0]
    passed = HandOver(read=b"", step=0, job=job, facts=FACTS, until=0.5)(block)
    assert value_in(passed, PREPARED) == LeftOut()
    assert packed_in(passed, WORK) is None


def test_several_decisions_are_as_sure_as_the_least_sure_of_them(tokenizer: Tokenizer) -> None:
    facts = make_facts("sequence-classification", names=("a", "b"), problem_type="multi_label_classification")
    job = make_job(TASK)
    prepared, answers = answered(
        rows_of("w1", "w2"), job, facts, tokenizer, {"w1": says(3.0), "w2": says(-3.0)}.__getitem__
    )
    confidences = sure_rows(job, facts, prepared, answers).confidences
    assert confidences.tolist() == pytest.approx([0.5, 0.5])  # the class of logit 0


def test_no_answer_is_as_unsure_as_can_be(tokenizer: Tokenizer) -> None:
    facts = make_facts("question-answering")
    job = make_job(AnswerTask(text="{{ body }}", question="w7"))

    def model(text: str) -> OnePassAnswer:
        length = len(text.split())
        logits = np.zeros((length, 2), np.float32)
        logits[0 if "w1" in text else -1] = 9.0  # the first token stands for no answer
        return OnePassAnswer(values=logits)

    prepared, answers = answered(rows_of("w1 w3", "w2 w3"), job, facts, tokenizer, model)
    sure = sure_rows(job, facts, prepared, answers)
    found: list[Any] = sure.finished.results["answer"].to_pylist()
    assert found[0] is None
    assert sure.confidences.tolist() == pytest.approx([0.0, found[1]["score"]])
    assert found[1]["score"] > 0.9


@pytest.mark.parametrize(
    ("facts", "place", "said"),
    [
        (make_facts("sequence-classification", names=("no", "maybe")), "cascade[1].model", "no, yes and no, maybe"),
        (
            make_facts("sequence-classification", names=("no", "yes"), problem_type="multi_label_classification"),
            "cascade[1].model",
            "another form",
        ),
        (
            make_facts("sequence-classification", names=("no", "yes"), problem_type="regression"),
            "cascade",
            "regression",
        ),
    ],
)
def test_models_whose_answers_are_not_alike_are_refused(facts: TaskFacts, place: str, said: str) -> None:
    with pytest.raises(TaskError, match=said) as caught:
        check_steps(job_with(0.9), [FACTS, facts])
    assert caught.value.place == place
    check_steps(job_with(0.9), [FACTS, make_facts("sequence-classification", names=("yes", "no"))])
