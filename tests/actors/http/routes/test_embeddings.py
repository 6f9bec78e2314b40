"""Embeddings online are what the checkpoint's sentence-transformers files say, as the scorer has them."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from models import Scorer
from models.config.model_config import ModelConfig
from models.tasks.embedding import embedding_of
from models.text.tokenizer import Tokenizer
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import load, served, serving
from tests.helpers.models.sentence_checkpoints import QUERY_PROMPT, add_modules, dense, new_pooling, without_template
from tests.helpers.tiny_checkpoints import save_with_tokenizer

TEXTS = ["Hello world", "Zürich <|im_end|> 12345", "日本語"]
CHAINS: dict[str, Any] = {
    "plain": None,
    "dense": [("Pooling", new_pooling("mean")), ("Dense", dense(32, 16, "activation.Tanh")), ("Normalize", {})],
    "unscaled": [("Pooling", new_pooling("mean", include_prompt=False))],
    "chat": [("Pooling", new_pooling("lasttoken"))],
    "odd": [("LayerNorm", {})],
}
ABOUT = {"prompts": {"query": QUERY_PROMPT, "document": ""}, "default_prompt_name": "query"}
CHAT = {"modality_config": {"text": {}, "message": {"format": "flat"}}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("embedders")
    save_with_tokenizer(root / "base", "qwen3", "causal", {"max_position_embeddings": 256})
    for name, chain in CHAINS.items():
        folder = without_template(root / "base", root / name)
        if name == "chat":
            (folder / "chat_template.jinja").write_text(
                "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            )
        if chain is not None:
            texts = CHAT if name == "chat" else {"max_seq_length": 100}
            add_modules(folder, chain, config_sentence_transformers=ABOUT, sentence_bert_config=texts)
    return {name: root / name for name in CHAINS}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[openai.OpenAI]:
    loaded = {name: load(folder) for name, folder in folders.items()}
    models = [served(name, folders[name], model) for name, model in loaded.items()]
    with serving(models) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as found:
        yield found
    for model in loaded.values():
        model.close()


def expected(folder: Path, texts: list[str], name: str | None, **options: Any) -> np.ndarray[Any, Any]:
    embedding = embedding_of(folder, ModelConfig.from_pretrained(folder))
    tokenizer, prompt = Tokenizer.from_pretrained(folder), embedding.prompt(name=name)
    ids = embedding.token_ids(tokenizer, texts, prompt=prompt)
    skipped = embedding.num_skipped(tokenizer, prompt)
    return Scorer.from_pretrained(folder).embed(ids, num_skipped=skipped, **options).numpy()


@pytest.mark.parametrize(
    ("name", "prompt_name"),
    [
        ("plain", None),
        *((name, prompt) for name in ("dense", "unscaled", "chat") for prompt in (None, "query", "document")),
    ],
)
def test_vectors_are_what_the_checkpoints_files_say(
    client: openai.OpenAI, folders: dict[str, Path], name: str, prompt_name: str | None
) -> None:
    extra = {} if prompt_name is None else {"prompt_name": prompt_name}
    found = client.embeddings.create(model=name, input=TEXTS, extra_body=extra)
    vectors = np.array([one.embedding for one in found.data])
    np.testing.assert_allclose(vectors, expected(folders[name], TEXTS, prompt_name), atol=1e-5)


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("name", ["plain", "dense", "unscaled"])
def test_dimensions_are_the_first_and_of_length_one_where_vectors_are(
    client: openai.OpenAI, folders: dict[str, Path], name: str, encoding: Any
) -> None:
    answer = client.embeddings.create(model=name, input=TEXTS, dimensions=7, encoding_format=encoding)
    raw = [one.embedding for one in answer.data]
    found = np.stack(
        [np.frombuffer(base64.b64decode(one), "<f4") if isinstance(one, str) else np.array(one) for one in raw]
    )
    whole = expected(folders[name], TEXTS, None, normalize=False)[:, :7]
    if name != "unscaled":
        whole = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    assert found.shape == (3, 7)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def refused(client: openai.OpenAI, **body: Any) -> dict[str, Any]:
    response = plain_http.post(f"{client.base_url}embeddings", json={"model": "dense", "input": "Hello", **body})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"dimensions": 17}, "dimensions", "dimensions was 17; this checkpoint's vectors have from 1 to 16"),
        ({"dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"prompt_name": "passage"}, "prompt_name", "no prompt 'passage'"),
        ({"prompt_name": "query", "input": [[5, 6]]}, "prompt_name", "a prompt stands before texts, and token ids were given"),
        ({"input": "word " * 120}, "input", "at most 100 are possible"),
        ({"model": "odd"}, "model", "makes no embeddings: its sentence-transformers files ask for what this service does not know"),
    ],
)  # fmt: skip
def test_what_a_checkpoint_does_not_have_is_refused(
    client: openai.OpenAI, body: dict[str, Any], param: str, says: str
) -> None:
    error = refused(client, **body)
    assert error["param"] == param
    assert says in error["message"]


def test_token_ids_are_taken_as_they_are(client: openai.OpenAI, folders: dict[str, Path]) -> None:
    found = client.embeddings.create(model="dense", input=[[5, 6, 7]])
    scorer = Scorer.from_pretrained(folders["dense"])
    np.testing.assert_allclose(found.data[0].embedding, scorer.embed([[5, 6, 7]])[0].numpy(), atol=1e-5)
    assert found.usage.prompt_tokens == 3
