"""Classes and extractions online are those of a job over the same texts."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from actors.engine.backends import OnePassRequest, scored
from actors.online.local import LocalModel
from actors.work import OnePassAnswer
from models import Scorer
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.ledger.unit_files import result_table
from pipelines.rows.rows import Answers, FinishedUnit
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import ModelRequest, Piece
from pipelines.task_base.task import Task
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.spans import SpansTask
from pipelines.unit_steps.finish import finish
from pipelines.unit_steps.prepare import Preparer
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import load, served, serving
from tests.helpers.close import close_to
from tests.helpers.odd_texts import odd_texts
from tests.helpers.pipelines.making import make_job, make_rows

TEXTS = ("Hello world, how are you today?", "Zürich <|im_end|> 日本語の文章です。", "naïve café " * 40)
SHORT = TEXTS[:2]
QUESTION = "Which team?"
LABELS = ["billing", "shipping", "other"]


@pytest.fixture(scope="module")
def regression_path(classifier_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier, were it a regression of as many values."""
    folder = shutil.copytree(classifier_path, tmp_path_factory.mktemp("stars") / "stars")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    return folder


@pytest.fixture(scope="module")
def address(
    causal_path: Path,
    causal: LocalModel,
    classifier_path: Path,
    tagger_path: Path,
    reader_path: Path,
    regression_path: Path,
) -> Iterator[str]:
    paths = {"classifier": classifier_path, "tagger": tagger_path, "reader": reader_path, "stars": regression_path}
    loaded = {name: load(path) for name, path in paths.items()}
    models = [served(name, paths[name], model) for name, model in loaded.items()]
    with serving([served("causal", causal_path, causal), *models]) as found:
        yield found
    for model in loaded.values():
        model.close()


def of_a_job(path: Path, task: Task, texts: tuple[str, ...], *, max_model_len: int) -> pa.Table:
    """The result columns of a job."""
    return result_table(finished_by_a_job(path, task, texts, max_model_len=max_model_len))


def finished_by_a_job(path: Path, task: Task, texts: tuple[str, ...], *, max_model_len: int) -> FinishedUnit:
    """The texts as one unit of a job, in which what the task asks before all rows is found first."""
    tokenizer = Tokenizer.from_pretrained(path)
    facts = TaskFacts.from_config(ModelConfig.from_pretrained(path), tokenizer, max_model_len)
    preparer = Preparer(make_job(task), tokenizer, facts)
    prepared = preparer.prepare(make_rows(pa.table({"body": texts})), relative_path="rows.parquet")
    scorer = Scorer.from_pretrained(path, dtype="float32")
    labels = preparer.asked.labels

    def answers_to(pieces: Sequence[Piece] | Sequence[ModelRequest]) -> list[OnePassAnswer]:
        asked = [OnePassRequest(piece.token_ids.tolist(), piece.labels or labels) for piece in pieces]
        return scored(scorer, preparer.asked, asked)

    trial = task.encoder(tokenizer, facts).trial
    job = make_job(task.with_found(task.found_in(answers_to(trial))) if trial else task)
    return finish(job, facts, prepared, Answers(results=answers_to(prepared.requests), seconds=0.0))


ODD = tuple(odd_texts(500))
PER_POST = 50


def as_input(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"input": texts[start : start + PER_POST]} for start in range(0, len(texts), PER_POST)]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model and how it is asked, by a job and over HTTP, where `bodies` have the texts; `columns` of a row are the answer's keys of
    these names."""

    name: str
    model: str
    path: str
    task: Task
    body: Mapping[str, Any]
    columns: tuple[str, ...]
    bodies: Callable[[Sequence[str]], list[dict[str, Any]]] = as_input


DESCRIBED = {"billing": "invoices and payments", "shipping": "parcels", "bill": "other"}
LABEL_TEXTS = {"shipping": " Shipping & parcels"}
EXAMPLES = ({"text": "naïve <|im_end|>", "label": "shipping"}, {"text": "Where is my refund?", "label": "billing"})
BEFORE, BEHIND = "Text: ", "\nTopic: "
ASKED = "Which team is to answer this?\n\n"


def as_prompts(texts: Sequence[str], *, behind: str) -> list[dict[str, Any]]:
    prompts = [f"{BEFORE}{text}{behind}" for text in texts]
    return [{"prompt": prompts[start : start + PER_POST]} for start in range(0, len(prompts), PER_POST)]


def as_messages(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": f"{ASKED}{text}"}]} for text in texts]


ENDPOINTS = (
    Endpoint("a head", "classifier", "classify", ClassifyTask(text="{{ body }}"), {}, ("scores",)),
    Endpoint(
        "labels",
        "causal",
        "classify",
        LabelsTask(text="{{ body }}", question=QUESTION, labels=tuple(LABELS)),
        {"labels": LABELS, "question": QUESTION},
        ("scores",),
    ),
    Endpoint(
        "all about labels",
        "causal",
        "classify",
        LabelsTask(
            text="{{ body }}",
            question=QUESTION,
            labels=tuple(DESCRIBED),
            descriptions=DESCRIBED,
            label_texts=LABEL_TEXTS,
            label_stop=False,
            examples=EXAMPLES,
            calibrate="prior",
            label_mass=True,
        ),
        {
            "labels": DESCRIBED,
            "question": QUESTION,
            "label_texts": LABEL_TEXTS,
            "label_stop": False,
            "examples": EXAMPLES,
            "calibrate": "prior",
            "label_mass": True,
        },
        ("label", "scores", "label_mass"),
    ),
    Endpoint(
        "prompts that end alike",
        "causal",
        "classify",
        LabelsTask(
            prompt=f"{BEFORE}{{{{ body }}}}{BEHIND}",
            labels=tuple(DESCRIBED),
            label_texts=LABEL_TEXTS,
            label_mass=True,
        ),
        {"labels": [*DESCRIBED], "label_texts": LABEL_TEXTS, "label_mass": True},
        ("label", "scores", "label_mass"),
        partial(as_prompts, behind=BEHIND),
    ),
    Endpoint(
        "prompts that end in their text",
        "causal",
        "classify",
        LabelsTask(prompt=f"{BEFORE}{{{{ body }}}}", labels=tuple(LABELS), label_stop=True, label_mass=True),
        {"labels": LABELS, "label_stop": True, "label_mass": True},
        ("label", "scores", "label_mass"),
        partial(as_prompts, behind=""),
    ),
    Endpoint(
        "messages",
        "causal",
        "classify",
        LabelsTask(
            messages=[{"role": "user", "content": f"{ASKED}{{{{ body }}}}"}],
            labels=tuple(DESCRIBED),
            chat_template_kwargs={"enable_thinking": False},
            label_mass=True,
        ),
        {"labels": [*DESCRIBED], "chat_template_kwargs": {"enable_thinking": False}, "label_mass": True},
        ("label", "scores", "label_mass"),
        as_messages,
    ),
    Endpoint("spans", "tagger", "extract", SpansTask(text="{{ body }}"), {}, ("spans",)),
    Endpoint(
        "answers",
        "reader",
        "extract",
        AnswerTask(text="{{ body }}", question=QUESTION),
        {"question": QUESTION},
        ("answer",),
    ),
)
SHARES = 5
"""Every so many texts are an endpoint's, so that it has a hundred."""


@pytest.mark.parametrize("every", [SHARES, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_five_hundred_odd_texts_have_the_answers_of_a_job(
    endpoint: Endpoint,
    every: int,
    address: str,
    causal_path: Path,
    classifier_path: Path,
    tagger_path: Path,
    reader_path: Path,
) -> None:
    """Each asks for its share of them, and in `make faults` for all."""
    odd = ODD[ENDPOINTS.index(endpoint) % every :: every]
    path = {"causal": causal_path, "classifier": classifier_path, "tagger": tagger_path, "reader": reader_path}
    max_model_len = 512 if endpoint.model == "causal" else 128
    unit = finished_by_a_job(path[endpoint.model], endpoint.task, odd, max_model_len=max_model_len)
    refused = {failure.row for failure in unit.failures}
    good = [text for row, text in enumerate(odd) if row not in refused]
    expected = result_table(unit).select(endpoint.columns).to_pylist()
    assert len(good) == len(expected) > 0.8 * len(odd)
    found = []
    for body in endpoint.bodies(good):
        answer = post(address, endpoint.path, model=endpoint.model, **body, **endpoint.body)
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
    for text, one, other in zip(good, found, expected, strict=True):
        for column in endpoint.columns:
            value = dict(other[column]) if column == "scores" else other[column]
            assert one[column] == close_to(value), text
    for body in [body for row in refused for body in endpoint.bodies([odd[row]])]:
        answer = post(address, endpoint.path, model=endpoint.model, **body, **endpoint.body)
        (key,) = body
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, key), body


def post(address: str, path: str, **body: Any) -> httpx.Response:
    return plain_http.post(f"{address}/v1/{path}", json=body, timeout=60)


def test_classes_of_a_head_are_those_of_a_job(address: str, classifier_path: Path) -> None:
    task = ClassifyTask(text="{{ body }}")
    expected = of_a_job(classifier_path, task, SHORT, max_model_len=128).to_pylist()
    found = post(address, "classify", model="classifier", input=list(SHORT)).json()
    assert [one["label"] for one in found["data"]] == [row["label"] for row in expected]
    for one, row in zip(found["data"], expected, strict=True):
        assert one["scores"] == pytest.approx(dict(row["scores"]), abs=1e-5)
    assert found["usage"]["prompt_tokens"] == sum(row["prompt_tokens"] for row in expected)
    assert found["outcome"] == "single_label"


def test_a_regression_says_that_it_is_one(address: str, regression_path: Path) -> None:
    expected = Scorer.from_pretrained(regression_path, dtype="float32").score(
        [Tokenizer.from_pretrained(regression_path).encode("Hello")]
    )[0]
    found = post(address, "classify", model="stars", input="Hello").json()
    assert found["outcome"] == "regression"
    assert found["data"][0]["label"] is None
    assert list(found["data"][0]["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_labels_of_a_causal_model_are_those_of_a_job(address: str, causal_path: Path) -> None:
    task = LabelsTask(text="{{ body }}", question=QUESTION, labels=tuple(LABELS))
    expected = of_a_job(causal_path, task, SHORT, max_model_len=512).to_pylist()
    found = post(address, "classify", model="causal", input=list(SHORT), labels=LABELS, question=QUESTION).json()
    assert [one["label"] for one in found["data"]] == [row["label"] for row in expected]
    for one, row in zip(found["data"], expected, strict=True):
        assert one["scores"] == pytest.approx(dict(row["scores"]), abs=1e-5)
        assert sum(one["scores"].values()) == pytest.approx(1)


def test_spans_are_those_of_a_job_whose_windows_cut_a_long_text(address: str, tagger_path: Path) -> None:
    expected = of_a_job(tagger_path, SpansTask(text="{{ body }}"), TEXTS, max_model_len=128).to_pylist()
    found = post(address, "extract", model="tagger", input=list(TEXTS)).json()["data"]
    for one, row, text in zip(found, expected, TEXTS, strict=True):
        shown = [{**span, "score": pytest.approx(span["score"], abs=1e-5)} for span in row["spans"]]
        assert one["spans"] == shown
        assert all(text[span["start"] : span["end"]] == span["text"] for span in one["spans"])
        assert one["answer"] is None


def test_answers_are_those_of_a_job(address: str, reader_path: Path) -> None:
    task = AnswerTask(text="{{ body }}", question=QUESTION)
    expected = of_a_job(reader_path, task, TEXTS, max_model_len=128).to_pylist()
    found = post(address, "extract", model="reader", input=list(TEXTS), question=QUESTION).json()["data"]
    for one, row in zip(found, expected, strict=True):
        answer = row["answer"]
        assert one["spans"] is None
        assert one["answer"] == (answer and {**answer, "score": pytest.approx(answer["score"], abs=1e-5)})


def test_an_empty_text_has_no_spans(address: str) -> None:
    assert post(address, "extract", model="tagger", input="").json()["data"] == [
        {"index": 0, "spans": [], "answer": None}
    ]


def test_a_classifier_embeds_too(address: str) -> None:
    answer = post(address, "embeddings", model="classifier", input="Hello").json()
    assert np.linalg.norm(answer["data"][0]["embedding"]) == pytest.approx(1, abs=1e-5)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("classify", {"model": "classifier", "input": "x", "labels": ["a"]}, "labels"),
    ("classify", {"model": "classifier", "input": "x", "question": "q"}, "question"),
    ("classify", {"model": "classifier", "input": ["x", ""]}, "input"),
    ("classify", {"model": "classifier", "input": "x " * 400}, "input"),
    ("classify", {"model": "causal", "input": "x"}, "labels"),
    ("classify", {"model": "causal", "input": "x", "labels": ["a", "a"]}, "labels"),
    ("classify", {"model": "causal", "input": "x", "labels": [""]}, "labels[0]"),
    ("classify", {"model": "causal", "input": "x " * 600, "labels": ["a", "b"]}, "input"),
    ("classify", {"model": "tagger", "input": "x"}, "model"),
    ("extract", {"model": "tagger", "input": "x", "question": "q"}, "question"),
    ("extract", {"model": "reader", "input": "x"}, "question"),
    ("extract", {"model": "reader", "input": "x " * 200, "question": "q " * 200}, "question"),
    ("extract", {"model": "causal", "input": "x"}, "model"),
    ("extract", {"model": "tagger", "input": []}, "input"),
    ("completions", {"model": "tagger", "prompt": "x"}, "model"),
    ("chat/completions", {"model": "tagger", "messages": [{"role": "user", "content": "x"}]}, "model"),
]


@pytest.mark.parametrize(("path", "body", "param"), REFUSED)
def test_what_a_model_cannot_do_is_refused_by_name(address: str, path: str, body: dict[str, Any], param: str) -> None:
    response = post(address, path, **body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
