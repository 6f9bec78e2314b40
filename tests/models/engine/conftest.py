"""Engines over tiny models, each checked and closed after its test."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models import Engine, Output
from models.engine.options import EngineOptions
from models.loading.load import LoadedModel, load_model
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_engine import GREEDY, SHARP, MakeEngine, folder_of, prompts


@pytest.fixture(scope="session")
def sharp(qwen3_checkpoint: Callable[..., Path]) -> LoadedModel:
    """A causal model of 96 tokens without a tokenizer."""
    return load_model(qwen3_checkpoint("causal", **SHARP))


@pytest.fixture(scope="session")
def hybrid(zamba2_checkpoint: Callable[..., Path]) -> LoadedModel:
    """A causal model with recurrent states."""
    return load_model(zamba2_checkpoint())


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Callable[[str], Path]) -> Tokenizer:
    """A byte-level tokenizer."""
    return Tokenizer.from_pretrained(tokenizer_folder("qwen"))


@pytest.fixture(scope="session")
def text_folder(
    tmp_path_factory: pytest.TempPathFactory,
    qwen3_checkpoint: Callable[..., Path],
    tokenizer_folder: Callable[[str], Path],
    tokenizer: Tokenizer,
) -> Path:
    """A checkpoint that speaks: a sharp model of the tokenizer's vocabulary, without end-of-sequence tokens."""
    checkpoint = qwen3_checkpoint("causal", vocab_size=tokenizer.vocab_size, **SHARP)
    return folder_of(tmp_path_factory.mktemp("text"), checkpoint, tokenizer=tokenizer_folder("qwen"), eos=[])


@pytest.fixture(scope="session")
def speaking(text_folder: Path) -> LoadedModel:
    return load_model(text_folder)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Closed until a test sets it: an engine of `paused_after` waits there in mid-request."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def make_engine(sharp: LoadedModel) -> Iterator[MakeEngine]:
    """A function (loaded model, tokenizer, max_model_len, **engine options) -> Engine.

    After the test no engine may hold a block or be inconsistent.
    """
    made: list[Engine] = []

    def make(
        loaded: LoadedModel = sharp,
        *,
        tokenizer: Tokenizer | None = None,
        max_model_len: int | None = None,
        **options: Any,
    ) -> Engine:
        if max_model_len is not None:
            loaded = replace(loaded, max_model_len=max_model_len)
        engine = Engine(loaded, tokenizer=tokenizer, options=EngineOptions(**{"cache_bytes": 2**22, **options}), seed=0)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
        engine.check_integrity()
        assert engine.stats.num_blocks_held == 0


@pytest.fixture(scope="session")
def alone(sharp: LoadedModel) -> list[Output]:
    """What each of `prompts()` gives greedily when nothing else runs and everything fits."""
    outputs: list[Output] = []
    for prompt in prompts():
        with Engine(sharp, tokenizer=None, options=EngineOptions(cache_bytes=2**22)) as engine:
            outputs += engine.generate([prompt], GREEDY)
    return outputs
