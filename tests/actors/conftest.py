"""Served models, loaded once for all tests of the online service."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.online.local import LocalModel
from tests.helpers.actors.serving import load
from tests.helpers.models import tiny_tokenizers
from tests.helpers.tiny_checkpoints import save_checkpoint

MAX_MODEL_LEN = 512
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.fixture(scope="session")
def causal_path(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("causal", max_position_embeddings=MAX_MODEL_LEN)


@pytest.fixture(scope="session")
def classifier_path(tiny_checkpoint: Callable[..., Path]) -> Path:
    names = {0: "billing", 1: "shipping", 2: "other"}
    return tiny_checkpoint("sequence-classification", id2label=names, label2id={name: n for n, name in names.items()})


@pytest.fixture(scope="session")
def tagger_path(tiny_checkpoint: Callable[..., Path]) -> Path:
    names = dict(enumerate(TAGS))
    return tiny_checkpoint("token-classification", id2label=names, label2id={name: n for n, name in names.items()})


@pytest.fixture(scope="session")
def reranker_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal Qwen3 that answers yes or no."""
    folder = tmp_path_factory.mktemp("reranker")
    tiny_tokenizers.qwen_reranker(folder)
    save_checkpoint(folder, "qwen3", "causal", {"vocab_size": 512, "max_position_embeddings": MAX_MODEL_LEN})
    return folder


@pytest.fixture(scope="session")
def reader_path(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("question-answering")


@pytest.fixture(scope="session")
def causal(causal_path: Path) -> Iterator[LocalModel]:
    """A causal model, ready to be served."""
    model = load(causal_path)
    yield model
    model.close()
