import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.work import OnePassAnswer, Refused
from models.engine.scheduling.request import Output, SamplingParams, TokenLogprobs
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError
from pipelines.job import Job
from pipelines.kinds import INTERNAL_ERROR
from pipelines.ledger.unit_files import encode_results, result_table
from pipelines.rows.rows import Answers, FinishedUnit
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import ModelRequest
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.spans import SpansTask
from pipelines.unit_steps.finish import finish, result_columns
from pipelines.unit_steps.prepare import Preparer
from tests.helpers.pipelines.making import make_facts, make_job, make_rows, word_tokenizer

CAUSAL = make_facts("causal")
BIO = make_facts("token-classification", names=("O", "B-X", "I-X", "B-Y", "I-Y"))
ANSWERS = make_facts("question-answering", names=("start", "end"))
TOKEN_COLUMNS = ["finish_reason", "prompt_tokens", "completion_tokens"]
Model = Callable[[ModelRequest], Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("tokenizer"), has_frame=True)


def run(job: Job, facts: TaskFacts, tokenizer: Tokenizer, columns: dict[str, Any], model: Model) -> FinishedUnit:
    """Prepares rows 10 and on, answers every request with `model`, and finishes."""
    rows = make_rows(pa.table(columns), first_row=10)
    prepared = Preparer(job, tokenizer, facts).prepare(rows, relative_path="x")
    found = map(model, prepared.requests)
    results = [OnePassAnswer(values=one, num_cached_tokens=1) if isinstance(one, np.ndarray) else one for one in found]
    unit = finish(job, facts, prepared, Answers(results=results, seconds=2.5))
    added = result_columns(job, facts)
    assert list(result_table(unit).schema)[-len(added) :] == added
    result_table(unit).validate(full=True)
    return unit


def generated(request: ModelRequest, **changes: Any) -> Output:
    fields: dict[str, Any] = {"text": "out", "token_ids": [7, 8, 3], "finish_reason": "stop", "num_cached_tokens": 2}
    return Output(num_prompt_tokens=len(request.token_ids), **fields | changes)


def logits(*values: float) -> Model:
    return lambda _: np.array(values, np.float32)


def values(unit: FinishedUnit, column: str) -> list[Any]:
    return list(result_table(unit)[column].to_pylist())


def words(numbers: Sequence[int]) -> str:
    return " ".join(f"w{number}" for number in numbers)


class TestGenerate:
    job = make_job(GenerateTask(prompt="{{ body }}"))

    def test_text_and_token_counts_stand_after_the_carried_columns(self, tokenizer: Tokenizer) -> None:
        unit = run(self.job, CAUSAL, tokenizer, {"id": [1, 2], "body": ["w1", "w1 w2"]}, generated)
        assert result_table(unit).column_names == ["id", "body", "text", *TOKEN_COLUMNS]
        assert result_table(unit).to_pylist()[1] == {
            "id": 2,
            "body": "w1 w2",
            "text": "out",
            "finish_reason": "stop",
            "prompt_tokens": 4,
            "completion_tokens": 3,
        }
        assert (unit.prompt_tokens, unit.cached_tokens, unit.completion_tokens, unit.seconds) == (7, 4, 6, 2.5)

    def test_a_request_that_the_engine_refused_is_a_dead_letter(self, tokenizer: Tokenizer) -> None:
        def model(request: ModelRequest) -> Output | Refused:
            return Refused(error="too many stop strings") if request.row == 1 else generated(request)

        unit = run(self.job, CAUSAL, tokenizer, {"id": [1, 2, 3, 4], "body": [None, "w1", "w2", "w3"]}, model)
        assert [(failure.row, failure.kind) for failure in unit.failures] == [(10, "null_value"), (12, "refused")]
        assert unit.failures[1].message == "too many stop strings"
        assert unit.failures[1].input == {"id": 3, "body": "w2"}
        assert result_table(unit)["id"].to_pylist() == [2, 4]

    def test_a_request_that_our_own_code_failed_on_is_a_dead_letter_without_tokens(self, tokenizer: Tokenizer) -> None:
        fault = RowError(INTERNAL_ERROR, "models/engine/engine.py:1 in step: KeyError: 'a'")

        def model(request: ModelRequest) -> Output | RowError:
            return fault if request.row == 0 else generated(request)

        unit = run(self.job, CAUSAL, tokenizer, {"id": [1, 2], "body": ["w1 w2 w3", "w1 w2"]}, model)
        assert [(failure.row, failure.kind, failure.message) for failure in unit.failures] == [
            (10, INTERNAL_ERROR, fault.message)
        ]
        assert result_table(unit)["id"].to_pylist() == [2]
        assert (unit.prompt_tokens, unit.cached_tokens, unit.completion_tokens) == (4, 2, 3)

    @pytest.mark.parametrize(
        ("written", "stripped"), [(" a\n b\t\n", "a\n b"), ("\u3000x\u00a0", "x"), (" \n", ""), ("", "")]
    )
    def test_a_text_is_stripped_of_white_space_where_the_task_says_so(
        self, tokenizer: Tokenizer, written: str, stripped: str
    ) -> None:
        def text_of(task: GenerateTask) -> pa.Table:
            unit = run(make_job(task), CAUSAL, tokenizer, {"body": ["w1"]}, lambda one: generated(one, text=written))
            return result_table(unit)

        plain = text_of(GenerateTask(prompt="{{ body }}"))
        found = text_of(GenerateTask(prompt="{{ body }}", strip=True))
        assert plain["text"].to_pylist() == [written]
        assert found["text"].to_pylist() == [stripped]
        assert found.drop_columns(["text"]) == plain.drop_columns(["text"])

    def test_log_probabilities_are_a_column_when_asked_for(self, tokenizer: Tokenizer) -> None:
        job = make_job(GenerateTask(prompt="{{ body }}", sampling=SamplingParams(logprobs=2)))
        token = TokenLogprobs(token_id=7, logprob=-0.5, rank=2, top={9: -0.25, 7: -0.5})
        unit = run(job, CAUSAL, tokenizer, {"body": ["w1"]}, lambda request: generated(request, logprobs=[token]))
        top = [{"token_id": 9, "logprob": -0.25}, {"token_id": 7, "logprob": -0.5}]
        assert result_table(unit)["logprobs"].to_pylist() == [[{"token_id": 7, "logprob": -0.5, "rank": 2, "top": top}]]


class TestCarriedColumns:
    def test_types_stay_what_they_were(self, tokenizer: Tokenizer) -> None:
        columns = {
            "body": pa.array(["w1", "w2", None]),
            "category": pa.array(["a", "b", "a"]).dictionary_encode(),
            "nested": pa.array([{"x": [1, None]}, None, {"x": []}], pa.struct([("x", pa.list_(pa.int16()))])),
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int8())),
            "when": pa.array([0, None, 2], pa.timestamp("ns", "UTC")),
            "view": pa.array(["x", "y", "z"], pa.string_view()),
        }
        table = pa.table(columns)
        job = make_job(ClassifyTask(text="{{ body | default('w3', true) if view == 'z' else body }}"))
        facts = make_facts("sequence-classification", names=("a", "b"))
        unit = run(job, facts, tokenizer, columns, logits(1.0, 0.0))
        assert list(result_table(unit).schema)[:6] == list(table.schema)
        assert result_table(unit).select(table.column_names).equals(table)

    def test_types_stay_when_rows_fail(self, tokenizer: Tokenizer) -> None:
        columns = {"body": ["w1", None, "w3"], "view": pa.array(["x", "y", "z"], pa.string_view())}
        unit = run(TestGenerate.job, CAUSAL, tokenizer, columns, generated)
        assert result_table(unit).schema.field("view").type == pa.string_view()
        assert result_table(unit)["view"].to_pylist() == ["x", "z"]
        assert unit.failures[0].input == {"body": None, "view": "y"}

    def test_only_the_named_columns_are_carried_in_their_order(self, tokenizer: Tokenizer) -> None:
        job = make_job(GenerateTask(prompt="{{ body }}"), columns=("z", "a"))
        unit = run(job, CAUSAL, tokenizer, {"a": [1], "body": ["w1"], "z": [2]}, generated)
        assert result_table(unit).column_names == ["z", "a", "text", *TOKEN_COLUMNS]

    def test_a_prefix_stands_before_every_result_column(self, tokenizer: Tokenizer) -> None:
        job = make_job(GenerateTask(prompt="{{ text }}"), prefix="out_")
        unit = run(job, CAUSAL, tokenizer, {"text": ["w1"]}, generated)
        assert result_table(unit).column_names == ["text", *(f"out_{name}" for name in ("text", *TOKEN_COLUMNS))]

    def test_a_unit_of_failed_rows_has_an_empty_table_of_the_same_schema(self, tokenizer: Tokenizer) -> None:
        cases = (
            (TestGenerate.job, CAUSAL),
            (make_job(ClassifyTask(text="{{ body }}")), make_facts("sequence-classification", names=("a", "b"))),
            (make_job(SpansTask(text="{{ body }}")), BIO),
            (make_job(AnswerTask(text="{{ body }}", question="w1")), ANSWERS),
        )
        for job, facts in cases:
            unit = run(job, facts, tokenizer, {"body": pa.array([None], pa.string())}, generated)
            assert (result_table(unit).num_rows, len(unit.failures)) == (0, 1)


class TestClassify:
    job = make_job(ClassifyTask(text="{{ body }}"))

    def finished(
        self, facts: TaskFacts, tokenizer: Tokenizer, model: Model, body: Sequence[str] = ("w1",)
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = result_table(run(self.job, facts, tokenizer, {"body": body}, model)).to_pylist(
            maps_as_pydicts="strict"
        )
        return rows

    def test_every_class_has_its_probability(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("a", "b", "c"))
        row = self.finished(facts, tokenizer, logits(0.0, math.log(3), 0.0))[0]
        assert row == {
            "body": "w1",
            "label": "b",
            "score": pytest.approx(0.6),
            "scores": pytest.approx({"a": 0.2, "b": 0.6, "c": 0.2}),
            "finish_reason": None,
            "prompt_tokens": 3,
            "completion_tokens": 0,
        }

    def test_tokens_that_were_computed_for_others_are_counted_apart(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("a", "b"))
        unit = run(self.job, facts, tokenizer, {"body": ["w1", "w1 w2"]}, logits(1.0, 0.0))
        assert (unit.prompt_tokens, unit.cached_tokens, unit.completion_tokens) == (7, 2, 0)

    def test_of_equal_classes_the_first_is_the_label(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("a", "b"))
        assert self.finished(facts, tokenizer, logits(1.0, 1.0))[0]["label"] == "a"

    def test_multi_label_classes_are_decided_apart(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("a", "b", "c"), problem_type="multi_label_classification")
        rows = self.finished(
            facts, tokenizer, lambda request: np.array([0.0, 3.0, -1.0 - request.row], np.float32), ("w1", "w2")
        )
        assert rows[0]["labels"] == ["a", "b"]
        assert rows[0]["label"] == "b"
        assert rows[0]["score"] == pytest.approx(1 / (1 + math.exp(-3)))
        assert rows[1]["scores"] == pytest.approx({"a": 0.5, "b": 1 / (1 + math.exp(-3)), "c": 1 / (1 + math.exp(2))})
        none = self.finished(facts, tokenizer, logits(-1.0, -2.0, -3.0))[0]
        assert (none["label"], none["labels"]) == ("a", [])

    def test_of_one_class_the_label_has_its_probability(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("relevant",))
        rows = self.finished(
            facts, tokenizer, lambda request: np.array([-1.0 + 2 * request.row], np.float32), ("w1", "w2")
        )
        for row, logit in zip(rows, (-1.0, 1.0), strict=True):
            score = 1 / (1 + math.exp(-logit))
            assert (row["label"], row["score"]) == ("relevant", pytest.approx(score))
            assert row["scores"] == pytest.approx({"relevant": score})
            assert "labels" not in row

    def test_a_regression_shows_the_value_itself_and_says_so(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("stars",), problem_type="regression")
        row = self.finished(facts, tokenizer, logits(4.25))[0]
        unit = run(self.job, facts, tokenizer, {"body": ["w1"]}, logits(4.25))
        written = pq.read_schema(pa.BufferReader(encode_results(unit, "parquet")))
        assert [written.field(name).metadata for name in ("score", "scores")] == [{b"problem_type": b"regression"}] * 2
        assert (row["label"], row["score"], row["scores"]) == (None, 4.25, {"stars": 4.25})

    def test_a_regression_of_several_values_has_no_single_score(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("x", "y"), problem_type="regression")
        row = self.finished(facts, tokenizer, logits(4.25, -1.0))[0]
        assert (row["label"], row["score"], row["scores"]) == (None, None, {"x": 4.25, "y": -1.0})

    def test_windows_are_put_together_by_mean_or_maximum(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("a", "b"))

        def model(request: ModelRequest) -> Any:
            return np.log(np.array([0.9, 0.1] if 4 in request.token_ids else [0.2, 0.8], np.float32))  # 4 is w0

        for how, a, b in (("mean", 0.55, 0.45), ("max", 0.9, 0.8)):
            job = make_job(ClassifyTask(text="{{ body }}", windows=how, window=10, stride=2))  # type: ignore[arg-type]
            row = result_table(run(job, facts, tokenizer, {"body": [words(range(14))]}, model)).to_pylist(
                maps_as_pydicts="strict"
            )[0]
            assert row["scores"] == pytest.approx({"a": a, "b": b})
            assert (row["label"], row["prompt_tokens"]) == ("a", 20)

    def test_labels_of_a_causal_model_share_their_probability(self, tokenizer: Tokenizer) -> None:
        job = make_job(LabelsTask(text="{{ body }}", labels=("w1", "w2")))
        unit = run(job, CAUSAL, tokenizer, {"body": ["w3"]}, logits(math.log(0.03), math.log(0.01)))
        row = result_table(unit).to_pylist(maps_as_pydicts="strict")[0]
        assert (row["label"], row["scores"]) == ("w1", pytest.approx({"w1": 0.75, "w2": 0.25}))

    def test_values_that_are_no_numbers_are_a_dead_letter(self, tokenizer: Tokenizer) -> None:
        facts = make_facts("sequence-classification", names=("a", "b"))

        def model(request: ModelRequest) -> Any:
            return np.array([float("nan") if request.row == 1 else 1.0, 0.0], np.float32)

        unit = run(self.job, facts, tokenizer, {"body": ["w1", "w2", "w3"]}, model)
        assert [(failure.row, failure.kind) for failure in unit.failures] == [(11, "not_finite")]
        assert result_table(unit)["body"].to_pylist() == ["w1", "w3"]


def tagging(tags: Sequence[int]) -> Model:
    """A model that gives word wN the tag tags[N], wherever it stands."""

    def model(request: ModelRequest) -> Any:
        values = np.zeros((len(request.token_ids), 5), np.float32)
        for place, token_id in enumerate(request.token_ids.tolist()):
            values[place, tags[token_id - 4] if token_id >= 4 else 1] = (
                5.0  # special tokens are tagged too, and left out
            )
        return values

    return model


class TestExtract:
    def test_spans_have_offsets_and_text(self, tokenizer: Tokenizer) -> None:
        job = make_job(SpansTask(text="{{ body }}!"))
        unit = run(job, BIO, tokenizer, {"body": ["w0  w1 w2", "", "w3"]}, tagging([0, 1, 2, 0] + [0] * 300))
        # "w2!" is no word of the vocabulary: its token is <unk>, which the model tags B-X
        assert values(unit, "spans")[0][0] | {"score": 0} == {
            "start": 4,
            "end": 6,
            "label": "X",
            "text": "w1",
            "score": 0,
        }

    def test_the_score_is_the_tags_probability(self, tokenizer: Tokenizer) -> None:
        job = make_job(SpansTask(text="{{ body }}"))
        unit = run(job, BIO, tokenizer, {"body": ["w0 w1 w2"]}, tagging([0, 1, 2]))
        expected = math.exp(5) / (math.exp(5) + 4)
        assert values(unit, "spans") == [
            [{"start": 3, "end": 8, "label": "X", "text": "w1 w2", "score": pytest.approx(expected, rel=1e-6)}]
        ]

    @given(tags=st.lists(st.integers(0, 4), min_size=1, max_size=60), window=st.integers(4, 20), data=st.data())
    def test_spans_do_not_depend_on_windows(
        self, tags: list[int], window: int, data: st.DataObject, tokenizer: Tokenizer
    ) -> None:
        stride = data.draw(st.integers(0, window - 3))
        columns = {"body": [words(range(len(tags))), "w0"]}
        whole = run(make_job(SpansTask(text="{{ body }}")), BIO, tokenizer, columns, tagging(tags))
        cut = run(
            make_job(SpansTask(text="{{ body }}", window=window, stride=stride)),
            BIO,
            tokenizer,
            columns,
            tagging(tags),
        )
        assert result_table(cut)["spans"].equals(result_table(whole)["spans"])

    def test_an_answer_is_found_in_its_window(self, tokenizer: Tokenizer) -> None:
        job = make_job(AnswerTask(text="{{ body }}", question="w100", window=10, stride=3))

        def model(request: ModelRequest) -> Any:
            values = np.zeros((len(request.token_ids), 2), np.float32)
            values[request.token_ids == 4 + 17, 0] = 4.0
            values[request.token_ids == 4 + 18, 1] = 4.0
            values[0] = 1.0
            return values

        body = [words(range(30)), words(range(9)), ""]
        answers = values(run(job, ANSWERS, tokenizer, {"body": body}, model), "answer")
        assert answers[0] | {"score": 0} == {
            "start": body[0].index("w17"),
            "end": body[0].index("w19") - 1,
            "text": "w17 w18",
            "score": 0,
        }
        assert 0 < answers[0]["score"] < 1
        assert answers[1:] == [None, None]


def test_columns_are_known_before_a_run() -> None:
    facts = make_facts("sequence-classification", names=("a", "b"), problem_type="multi_label_classification")
    names = [field.name for field in result_columns(make_job(ClassifyTask(text="x"), prefix="p_"), facts)]
    assert names == [
        "p_label",
        "p_score",
        "p_scores",
        "p_labels",
        "p_finish_reason",
        "p_prompt_tokens",
        "p_completion_tokens",
    ]
    scores = result_columns(make_job(ClassifyTask(text="x")), facts)[2]
    assert scores.type == pa.map_(pa.string(), pa.float32())
    spans = result_columns(make_job(SpansTask(text="x")), BIO)[0].type.value_type
    assert spans.names == ["start", "end", "label", "text", "score"]


def test_a_row_is_finished_alike_in_any_unit(tokenizer: Tokenizer) -> None:
    job = make_job(ClassifyTask(text="{{ body }}"))
    facts = make_facts("sequence-classification", names=("a", "b", "c"))

    def model(request: ModelRequest) -> Any:
        return np.random.default_rng(request.token_ids.tolist()).normal(size=3).astype(np.float32)

    body = [words(range(number)) for number in range(1, 40)]
    whole = result_table(run(job, facts, tokenizer, {"body": body}, model))
    alone = pa.concat_tables([result_table(run(job, facts, tokenizer, {"body": [text]}, model)) for text in body])
    assert whole.equals(alone)
