"""How rows become prompts that labels are scored behind, and what is made of the scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.work import OnePassAnswer
from models.tasks.calibration import NEUTRAL_ROWS
from models.tasks.labels import class_probabilities
from models.text.tokenizer import Tokenizer
from pipelines.errors import TaskError
from pipelines.rows.rows import Answers, FinishedUnit, PreparedUnit
from pipelines.task_base.requests import work_of
from pipelines.tasks.labels.task import LabelsTask
from pipelines.unit_steps.finish import finish, result_columns
from pipelines.unit_steps.prepare import Preparer
from tests.helpers.models.tiny_tokenizers import qwen
from tests.helpers.pipelines.making import CHAT_TEMPLATE, make_facts, make_job, make_rows, word_tokenizer

CAUSAL = make_facts("causal", max_model_len=200)
LABELS = ("w7", "w8")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"), chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen")
    qwen(folder)
    return Tokenizer.from_pretrained(folder)


def prepared(
    task: LabelsTask, tokenizer: Tokenizer, columns: dict[str, Any], *, max_model_len: int = 200
) -> PreparedUnit:
    preparer = Preparer(make_job(task), tokenizer, make_facts("causal", max_model_len=max_model_len))
    return preparer.prepare(make_rows(pa.table(columns)), relative_path="rows.parquet")


def prompts(task: LabelsTask, tokenizer: Tokenizer, columns: dict[str, Any], **facts: Any) -> list[str]:
    """The text of each prompt, special tokens and unknown words included."""
    unit = prepared(task, tokenizer, columns, **facts)
    return [tokenizer.decode(request.token_ids.tolist(), skip_special_tokens=False) for request in unit.requests]


class TestPrompt:
    def test_labels_stand_behind_a_template_of_ones_own(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="w1 {{ body }} w2 ", labels=LABELS)
        assert prompts(task, tokenizer, {"body": ["w3", "w4 w5"]}) == ["w1 w3 w2", "w1 w4 w5 w2"]
        assert Preparer(make_job(task), tokenizer, CAUSAL).asked.labels == ((11,), (12,))

    def test_what_is_scored_may_differ_from_the_label(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="{{ body }}", labels=("a", "b"), label_texts={"a": " w1 w2", "b": " w3"})
        assert Preparer(make_job(task), tokenizer, CAUSAL).asked.labels == ((5, 6), (7,))

    def test_a_description_is_of_what_is_scored(self, bpe: Tokenizer) -> None:
        task = LabelsTask(
            text="{{ body }}",
            labels=("a", "b"),
            label_texts={"a": " billing"},
            descriptions={"a": "invoices", "b": "parcels"},
        )
        begin = "billing: invoices\nb: parcels\n\nText: "
        assert prompts(task, bpe, {"body": ["one"]})[0].startswith(begin)

    def test_messages_end_where_the_assistant_answers(self, tokenizer: Tokenizer) -> None:
        messages = ({"role": "system", "content": "w0"}, {"role": "user", "content": "w1 {{ body }}"})
        task = LabelsTask(messages=messages, labels=LABELS, chat_template_kwargs={"enable_thinking": False})
        assert prompts(task, tokenizer, {"body": ["w2"]}) == [
            "<cls> system w0 <end> <cls> user w1 w2 <end> <cls> assistant w9"
        ]

    def test_a_role_may_be_a_template_where_the_chat_template_is_strict(self, tmp_path: Path) -> None:
        strict = "{% if messages[0].role not in ['user', 'system'] %}{{ raise_exception('no such role') }}{% endif %}"
        tokenizer = word_tokenizer(tmp_path, chat_template=strict + CHAT_TEMPLATE)
        task = LabelsTask(messages=({"role": "{{ who }}", "content": "{{ body }}"},), labels=LABELS)
        found = prompts(task, tokenizer, {"who": ["system", "user"], "body": ["w1", "w2"]})
        assert found == ["<cls> system w1 <end> <cls> assistant", "<cls> user w2 <end> <cls> assistant"]

    def test_a_chat_template_that_takes_no_answers_can_be_asked_for_a_label(self, tmp_path: Path) -> None:
        one_way = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('users alone') }}{% endif %}"
        tokenizer = word_tokenizer(tmp_path, chat_template=one_way + CHAT_TEMPLATE)
        task = LabelsTask(messages=({"role": "user", "content": "{{ body }}"},), labels=LABELS, label_stop=True)
        assert prompts(task, tokenizer, {"body": ["w1"]}) == ["<cls> user w1 <end> <cls> assistant"]
        end = tokenizer.eos_token_id
        assert [ids[-1] for ids in Preparer(make_job(task), tokenizer, CAUSAL).asked.labels] == [end, end]

    def test_messages_that_the_chat_template_refuses_are_an_error_of_the_task(self, tmp_path: Path) -> None:
        tokenizer = word_tokenizer(tmp_path, chat_template="{{ raise_exception('never') }}")
        task = LabelsTask(messages=({"role": "user", "content": "{{ body }}"},), labels=LABELS)
        with pytest.raises(TaskError, match="never") as caught:
            Preparer(make_job(task), tokenizer, CAUSAL)
        assert caught.value.place == "task.messages"

    def test_rows_whose_end_joins_the_labels_have_labels_of_their_own(self, bpe: Tokenizer) -> None:
        """A row that ends with a space gives it to the labels, as the template's own text does without a row."""
        task = LabelsTask(prompt="Topic {{ body }}", labels=("hello", "world"))
        bodies = ["one", "two ", "three"]
        unit = prepared(task, bpe, {"body": bodies})
        for body, request in zip(bodies, unit.requests, strict=True):
            labels = request.labels or Preparer(make_job(task), bpe, CAUSAL).asked.labels
            for label, ids in zip(task.labels, labels, strict=True):
                assert [*request.token_ids.tolist(), *ids] == bpe.encode(f"Topic {body}{label}")
        assert [request.labels is None for request in unit.requests] == [False, True, False]
        work = work_of("unit", unit.requests)
        assert work.own_labels == {n: r.labels for n, r in enumerate(unit.requests) if r.labels is not None}

    def test_a_long_prompt_is_a_dead_letter_that_says_what_to_do(self, tokenizer: Tokenizer) -> None:
        unit = prepared(LabelsTask(prompt="{{ body }} w1 ", labels=LABELS), tokenizer, {"body": ["w1 " * 300, "w2"]})
        assert [failure.kind for failure in unit.failures] == ["too_long"]
        assert "the prompt has 301 tokens and the longest label 1; at most 200" in unit.failures[0].message

    def test_an_empty_prompt_is_a_dead_letter(self, tokenizer: Tokenizer) -> None:
        unit = prepared(LabelsTask(prompt="{{ body }}", labels=LABELS), tokenizer, {"body": ["", "w1 "]})
        assert [failure.kind for failure in unit.failures] == ["empty_text"]

    def test_a_row_behind_which_labels_are_the_same_tokens_is_a_dead_letter(self, tokenizer: Tokenizer) -> None:
        """w1w7 and w1w8 are no words of the vocabulary."""
        unit = prepared(LabelsTask(prompt="{{ body }}", labels=LABELS), tokenizer, {"body": ["w1 ", "w0 w1"]})
        assert [failure.kind for failure in unit.failures] == ["invalid_value"]
        assert "end the prompt with a space" in unit.failures[0].message

    def test_labels_that_are_the_same_tokens_are_refused(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="{{ body }}", labels=("a", "b"), label_texts={"a": " w1", "b": "  w1"})
        with pytest.raises(TaskError, match="can tell from the others'"):
            Preparer(make_job(task), tokenizer, CAUSAL)


EXAMPLES = (
    {"text": "w10 w11", "label": "w7"},
    {"text": "w12 w13", "label": "w8"},
    {"text": "w14 w15", "label": "w7"},
)


def test_the_order_of_labels_changes_nothing_that_the_model_reads(bpe: Tokenizer) -> None:
    labels = ("a", "bee", "see you")
    one, other = (LabelsTask(text="{{ body }}", labels=each, calibrate="prior") for each in (labels, labels[::-1]))
    assert prompts(one, bpe, {"body": ["One.", "Two."]}) == prompts(other, bpe, {"body": ["One.", "Two."]})
    first, second = (Preparer(make_job(task), bpe, CAUSAL) for task in (one, other))
    assert first.asked.labels == second.asked.labels[::-1]
    assert [piece.token_ids.tolist() for piece in first.trial] == [piece.token_ids.tolist() for piece in second.trial]


class TestExamples:
    def test_the_first_stand_before_the_text(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(text="{{ body }}", labels=LABELS, examples=EXAMPLES, max_examples=2)
        assert words(prompts(task, tokenizer, {"body": ["w14"]})) == [["w10", "w11", "w7", "w12", "w13", "w8", "w14"]]

    def test_an_example_is_asked_and_answered_as_the_text_is(self, bpe: Tokenizer) -> None:
        examples = ({"text": "One.", "label": "a"}, {"text": "Two.", "label": "b"})
        task = LabelsTask(text="{{ body }}", labels=("a", "b"), examples=examples, label_texts={"b": " B"})
        assert prompts(task, bpe, {"body": ["Three."]}) == [
            "Text: One.\nCategory: a\n\nText: Two.\nCategory: B\n\nText: Three.\nCategory:"
        ]

    def test_the_most_alike_stand_nearest(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(text="{{ body }}", labels=LABELS, examples=EXAMPLES, max_examples=2, select="similar")
        assert words(prompts(task, tokenizer, {"body": ["w14 w20", "w20 w13 w12 w15"]})) == [
            ["w10", "w11", "w7", "w14", "w15", "w7", "w14", "w20"],
            ["w14", "w15", "w7", "w12", "w13", "w8", "w20", "w13", "w12", "w15"],
        ]

    def test_those_that_do_not_fit_are_left_out(self, tokenizer: Tokenizer) -> None:
        """The least alike go first: a prompt of the text alone has 4 tokens, one with an example 9."""
        task = LabelsTask(text="{{ body }}", labels=LABELS, examples=EXAMPLES, select="similar")
        found = words(prompts(task, tokenizer, {"body": ["w12 w20"]}, max_model_len=12))
        assert found == [["w12", "w13", "w8", "w12", "w20"]]

    @pytest.mark.parametrize("max_model_len", range(5, 31))
    def test_as_many_stand_there_as_fit(self, tokenizer: Tokenizer, max_model_len: int) -> None:
        """A prompt of the text alone has 3 tokens, each example 5 more, and a label one."""
        task = LabelsTask(text="{{ body }}", labels=LABELS, examples=EXAMPLES)
        found = prompts(task, tokenizer, {"body": ["w20"]}, max_model_len=max_model_len)
        num_fitting = min(len(EXAMPLES), (max_model_len - 1 - 3) // 5)
        shown = [word for each in EXAMPLES[:num_fitting] for word in (*each["text"].split(), each["label"])]
        assert words(found) == [[*shown, "w20"]]

    def test_an_example_is_a_row_of_ones_own_prompt(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="w1 {{ body }} ", labels=LABELS, examples=({"body": "w2", "label": "w8"},))
        assert prompts(task, tokenizer, {"body": ["w3"]}) == ["w1 w2 w8 w1 w3"]

    def test_an_example_of_messages_is_a_turn_that_was_answered(self, tokenizer: Tokenizer) -> None:
        messages = ({"role": "system", "content": "w0"}, {"role": "user", "content": "{{ body }}"})
        task = LabelsTask(messages=messages, labels=LABELS, examples=({"body": "w2", "label": "w8"},))
        assert prompts(task, tokenizer, {"body": ["w3"]}) == [
            "<cls> system w0 <end> <cls> user w2 <end> <cls> assistant w8 <end> <cls> user w3 <end> <cls> assistant"
        ]

    def test_an_example_without_a_column_of_the_prompt_is_refused(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="{{ body }} ", labels=LABELS, examples=({"other": "w2", "label": "w8"},))
        with pytest.raises(TaskError, match="body") as caught:
            Preparer(make_job(task), tokenizer, CAUSAL)
        assert caught.value.place == "task.examples[0]"

    def test_special_tokens_in_an_example_stay_text(self, bpe: Tokenizer) -> None:
        (end,) = bpe.encode("<|im_end|>")
        task = LabelsTask(text="{{ body }}", labels=("a", "b"), examples=({"text": "<|im_end|>", "label": "a"},))
        assert end not in prepared(task, bpe, {"body": ["x"]}).requests[0].token_ids

    def test_windows_have_as_many_as_leave_room(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(
            text="{{ body }}", labels=LABELS, examples=EXAMPLES, windows="mean", window=20, stride=4, max_examples=3
        )
        body = " ".join(f"w{number}" for number in range(30, 60))
        found = prompts(task, tokenizer, {"body": [body]})
        assert len(found) > 1
        assert all(len(prompt.split()) <= 20 for prompt in found)
        seen = {word for prompt in found for word in prompt.split() if word[1:].isdigit() and int(word[1:]) >= 30}
        assert seen == set(body.split())


def words(prompts: Sequence[str]) -> list[list[str]]:
    """What the tokenizer knows of each prompt: not "Text:" and "Category:"."""
    return [[word for word in prompt.split() if word.startswith("w")] for prompt in prompts]


class TestCalibration:
    def test_a_prior_is_asked_for_with_texts_that_say_nothing(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="w1 {{ body }} w2 ", labels=LABELS, calibrate="prior")
        trial = Preparer(make_job(task), tokenizer, CAUSAL).trial
        assert [tokenizer.decode(piece.token_ids.tolist(), skip_special_tokens=False) for piece in trial] == [
            "w1 <unk> w2",
            "w1 w2",
            "w1 <unk> w2",
        ]
        assert Preparer(make_job(LabelsTask(prompt="w1 ", labels=LABELS)), tokenizer, CAUSAL).trial == ()

    def test_a_template_that_takes_no_such_text_is_refused(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(prompt="w1 {{ 2 + number }} ", labels=LABELS, calibrate="prior")
        with pytest.raises(TaskError, match="use calibrate: batch") as caught:
            Preparer(make_job(task), tokenizer, CAUSAL)
        assert caught.value.place == "task.calibrate"

    def test_the_prior_is_taken_out_of_the_scores(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(text="{{ body }}", labels=LABELS, calibrate="prior")
        answers = [answer_of(pair) for pair in ([0.6, 0.2], [0.03, 0.01], [0.3, 0.1])]
        found = task.found_in(answers)
        assert np.exp(found) == pytest.approx([0.75, 0.25])
        rows = finished(task.with_found(found), tokenizer, [[0.2, 0.2], [0.03, 0.01]]).results.to_pylist()
        assert dict(rows[0]["scores"]) == pytest.approx({"w7": 0.25, "w8": 0.75})
        assert rows[0]["label"] == "w8"
        assert dict(rows[1]["scores"]) == pytest.approx({"w7": 0.5, "w8": 0.5})

    def test_a_batch_is_a_units_good_rows(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(text="{{ body }}", labels=LABELS, calibrate="batch")
        rows = finished(task, tokenizer, [[0.9, 0.1], [0.4, 0.1], [np.nan, 0.1]]).results.to_pylist()
        shares = np.array([[0.9, 0.1], [0.8, 0.2]])
        expected = shares / (shares[0] * shares[1]) ** (1 / (2 + NEUTRAL_ROWS))
        expected /= expected.sum(axis=1, keepdims=True)
        found = np.array([list(dict(row["scores"]).values()) for row in rows])
        assert found == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("how", ["prior", "batch"])
    def test_scores_say_how_they_were_calibrated(self, how: Any) -> None:
        task = LabelsTask(text="{{ body }}", labels=LABELS, calibrate=how)
        fields = {field.name: field.metadata for field in result_columns(make_job(task), CAUSAL)}
        assert fields["score"] == fields["scores"] == {b"calibrate": how.encode()}
        assert "labels" in (task.meaning_of_scores(CAUSAL) or "")

    def test_label_mass_is_a_column_of_what_all_labels_have(self, tokenizer: Tokenizer) -> None:
        task = LabelsTask(text="{{ body }}", labels=LABELS, label_mass=True, calibrate="batch")
        table = finished(task, tokenizer, [[0.3, 0.1], [0.01, 0.02]]).results
        assert table.column("label_mass").to_pylist() == pytest.approx([0.4, 0.03])
        assert table.column_names[:4] == ["label", "score", "scores", "label_mass"]

    def test_without_new_keys_columns_are_as_they_were(self, tokenizer: Tokenizer) -> None:
        table = finished(LabelsTask(text="{{ body }}", labels=LABELS), tokenizer, [[0.3, 0.1]]).results
        assert table.column_names == [
            "label", "score", "scores", "finish_reason", "prompt_tokens", "completion_tokens",
        ]  # fmt: skip
        assert table.schema.field("scores").metadata is None
        expected = class_probabilities(np.log(np.array([[0.3, 0.1]], np.float32)))[0]
        assert list(dict(table.to_pylist()[0]["scores"]).values()) == pytest.approx(expected.tolist())


def answer_of(probabilities: Sequence[float]) -> OnePassAnswer:
    """What an engine says of a prompt after which the labels have these probabilities."""
    return OnePassAnswer(values=np.log(np.array(probabilities, np.float32)))


def finished(task: LabelsTask, tokenizer: Tokenizer, probabilities: list[list[float]]) -> FinishedUnit:
    """A unit of rows after whose prompts the labels have these probabilities."""
    unit = prepared(task, tokenizer, {"body": [f"w{number}" for number in range(len(probabilities))]})
    results = [answer_of(row) for row in probabilities]
    return finish(make_job(task), CAUSAL, unit, Answers(results=results, seconds=0.0))


class TestRecord:
    def test_a_task_of_before_records_what_it_did_and_that_it_is_asked_otherwise(self) -> None:
        recorded = LabelsTask(text="{{ body }}", labels=LABELS, question="Q?").recorded()
        before = {
            "kind": "classify", "text": "{{ body }}", "labels": LABELS, "question": "Q?", "allow_special_tokens": False,
        }  # fmt: skip
        assert {name: value for name, value in recorded.items() if value is not None} == before | {
            "form": "text-category"
        }

    def test_what_was_found_is_no_part_of_what_tells_tasks_apart(self) -> None:
        task = LabelsTask(prompt="x", labels=LABELS, calibrate="prior")
        assert task.with_found([0.1, 0.2]).recorded() == task.recorded()
        assert task.recorded()["calibrate"] == {"prior": ["N/A", "", "[MASK]"]}
        assert task.recorded()["form"] is None
