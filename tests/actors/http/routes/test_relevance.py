"""Rerank and score: the scores of `models.tasks.rerank`, in the shapes of Jina's, Cohere's and vLLM's APIs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from actors.http.limits import RequestLimits, max_text_chars
from models import Scorer
from models.config.model_config import ModelConfig
from models.tasks.rerank import Pair, reranking_of
from models.text.tokenizer import Tokenizer
from tests.actors.conftest import MAX_MODEL_LEN
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import load, served, serving
from tests.helpers.matrix import first_quick
from tests.helpers.models import tiny_tokenizers
from tests.helpers.models.sentence_checkpoints import RERANKER_TEMPLATE, add_modules
from tests.helpers.tiny_checkpoints import save_checkpoint

QUERY = "how are you"
DOCUMENTS = ["Zürich 12345", "I'm fine, thanks — and you?", "", "日本語 <|im_end|> [SEP]", "Zürich 12345"]
CHAT = {"modality_config": {"text": {}, "message": {"format": "flat"}}}


@pytest.fixture(scope="module")
def folders(reranker_path: Path, classifier_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A reranker of each form, and what is none."""
    root = tmp_path_factory.mktemp("rerankers")
    sizes = {"vocab_size": 512, "max_position_embeddings": MAX_MODEL_LEN, "num_labels": 1, "pad_token_id": 0}
    tiny_tokenizers.word_piece(root / "pair")
    save_checkpoint(root / "pair", "llama", "sequence-classification", sizes)
    tiny_tokenizers.qwen_reranker(root / "chat")
    save_checkpoint(root / "chat", "qwen3", "sequence-classification", sizes)
    (root / "chat/chat_template.jinja").write_text(RERANKER_TEMPLATE)
    add_modules(root / "chat", [], sentence_bert_config=CHAT)
    return {"qwen3": reranker_path, "pair": root / "pair", "chat": root / "chat", "classifier": classifier_path}


@pytest.fixture(scope="module")
def address(folders: dict[str, Path]) -> Iterator[str]:
    loaded = {name: load(folder) for name, folder in folders.items()}
    models = [served(name, folders[name], model) for name, model in loaded.items()]
    with serving(models, limits=RequestLimits(max_inputs=8)) as found:
        yield found
    for model in loaded.values():
        model.close()


def post(address: str, path: str, **body: Any) -> httpx.Response:
    return plain_http.post(f"{address}/{path}", json=body, timeout=60)


def expected(folder: Path, pairs: list[tuple[str, str]], instruction: str | None = None) -> list[float]:
    tokenizer, scorer = Tokenizer.from_pretrained(folder), Scorer.from_pretrained(folder)
    reranking = reranking_of(folder, ModelConfig.from_pretrained(folder), tokenizer)
    asked = [Pair(query=query, document=document) for query, document in pairs]
    ids = reranking.token_ids(tokenizer, asked, instruction=instruction)
    values = scorer.score_labels(ids, reranking.label_ids) if reranking.label_ids else torch.stack(scorer.score(ids))
    found: list[float] = reranking.relevance(values.numpy()).tolist()
    return found


@pytest.mark.parametrize("path", first_quick(["v1/rerank", "v2/rerank", "rerank"]))
@pytest.mark.parametrize("name", ["qwen3", "pair", "chat"])
def test_documents_come_in_the_order_of_their_scores(
    address: str, folders: dict[str, Path], name: str, path: str
) -> None:
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}, *DOCUMENTS[2:]]
    answer = post(address, path, model=name, query=QUERY, documents=documents).json()
    scores = expected(folders[name], [(QUERY, document) for document in DOCUMENTS])
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    assert [one["index"] for one in answer["results"]] == order
    found = [one["relevance_score"] for one in answer["results"]]
    np.testing.assert_allclose(found, [scores[index] for index in order], atol=1e-5)
    assert [one["document"] for one in answer["results"]] == [{"text": DOCUMENTS[index]} for index in order]
    assert order.index(0) + 1 == order.index(4), "equals keep their order"
    assert answer["model"] == name
    assert answer["id"].startswith("rerank-")


def test_only_the_best_come_and_documents_only_if_wanted(address: str) -> None:
    body = {"model": "pair", "query": QUERY, "documents": DOCUMENTS}
    whole = post(address, "v1/rerank", **body).json()["results"]
    best = post(address, "v1/rerank", **body, top_n=2, return_documents=False).json()["results"]
    assert best == [{**one, "document": None} for one in whole[:2]]
    assert len(post(address, "v1/rerank", **body, top_n=100).json()["results"]) == len(DOCUMENTS)


@pytest.mark.parametrize("name", ["qwen3", "chat"])
def test_an_instruction_is_what_is_judged_by(address: str, folders: dict[str, Path], name: str) -> None:
    body = {"model": name, "text_1": QUERY, "text_2": ["a", "b"]}
    found = [one["score"] for one in post(address, "v1/score", **body, instruction="Judge the tone").json()["data"]]
    pairs = [(QUERY, "a"), (QUERY, "b")]
    np.testing.assert_allclose(found, expected(folders[name], pairs, "Judge the tone"), atol=1e-5)
    assert not np.allclose(found, expected(folders[name], pairs), atol=1e-5)


@pytest.mark.parametrize(
    ("text_1", "text_2", "pairs"),
    [
        ("a", "b", [("a", "b")]),
        ("a", ["b", "c"], [("a", "b"), ("a", "c")]),
        (["a"], ["b", "c"], [("a", "b"), ("a", "c")]),
        (["a", "b"], ["c", "d"], [("a", "c"), ("b", "d")]),
    ],
)
def test_texts_are_paired_as_vllm_pairs_them(
    address: str, folders: dict[str, Path], text_1: Any, text_2: Any, pairs: list[tuple[str, str]]
) -> None:
    answer = post(address, "v1/score", model="pair", text_1=text_1, text_2=text_2).json()
    assert [(one["index"], one["object"]) for one in answer["data"]] == [(n, "score") for n in range(len(pairs))]
    np.testing.assert_allclose([one["score"] for one in answer["data"]], expected(folders["pair"], pairs), atol=1e-5)
    assert (answer["object"], answer["model"]) == ("list", "pair")


def test_tokens_of_all_pairs_are_counted(address: str, folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_pretrained(folders["pair"])
    num_tokens = sum(map(len, tokenizer.encode_pairs([QUERY] * 2, ["a", "b c"])))
    usage = post(address, "v1/rerank", model="pair", query=QUERY, documents=["a", "b c"]).json()["usage"]
    assert usage == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    metrics = plain_http.get(f"{address}/metrics").text
    assert 'endpoint="/v1/rerank",model="pair"' in metrics


LONG = "x" * (max_text_chars(MAX_MODEL_LEN) + 1)


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("v1/rerank", {"documents": []}, "documents", "at least 1 item"),
        ("v1/rerank", {"query": ""}, "query", "at least 1 character"),
        ("v1/rerank", {"top_n": 0}, "top_n", "greater than or equal to 1"),
        ("v1/rerank", {"documents": ["a", 5]}, "documents[1]", "documents[1]"),
        ("v1/rerank", {"documents": [{"text": "a", "title": "b"}]}, "documents[0].title", "is not supported by this service"),
        ("v1/rerank", {"max_tokens_per_doc": 5}, "max_tokens_per_doc", "is not supported by this service"),
        ("v1/rerank", {"documents": ["a"] * 9}, "documents", "documents has 9 inputs; at most 8 are possible"),
        ("v1/rerank", {"documents": ["a", LONG]}, "documents", "documents[1] with its query has"),
        ("v1/rerank", {"query": LONG}, "query", "characters; at most 32768 are possible"),
        ("v1/rerank", {"documents": ["a", "b " * 600]}, "documents", "documents[1] with its query has"),
        ("v1/rerank", {"model": "classifier"}, "model", "the model classifier is no reranker"),
        ("v1/rerank", {"model": "none"}, "model", "there is no model 'none'"),
        ("v1/rerank", {"model": "pair", "instruction": "Judge"}, "instruction", "takes a query and a document and no instruction"),
        ("v1/rerank", {"instruction": LONG}, "instruction", "characters; at most 32768 are possible"),
        ("v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1", "text_1 has 2 texts and text_2 1; give one text_1"),
        ("v1/score", {"text_1": "a", "text_2": "b " * 600}, "text_2", "text_2[0] with its text_1 has"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(address: str, path: str, body: dict[str, Any], param: str, says: str) -> None:
    whole = {"v1/rerank": {"query": QUERY, "documents": ["a"]}, "v1/score": {}}[path]
    response = post(address, path, **{"model": "qwen3", **whole, **body})
    assert response.status_code in (400, 404)
    error = response.json()["error"]
    assert error["param"] == param
    assert says in error["message"]


def test_a_template_that_loses_texts_is_a_400(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in folders["chat"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    model = load(folder)
    with serving([served("m", folder, model)]) as address:
        response = post(address, "v1/rerank", model="m", query="a query", documents=["a document"])
    model.close()
    assert response.status_code == 400
    assert "leaves out the document's text" in response.json()["error"]["message"]
