"""A model in this process, as it is loaded for online requests."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.online_engine import LocalModel
from actors.work import EngineSettings
from models import Scorer
from models.errors import ConfigError
from tests.actors.serving import load

PROMPTS = ([5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15, 16])


@pytest.mark.parametrize("head", ["causal", "token-classification"])
@pytest.mark.parametrize("clamp", ["none", "prefill"])
def test_step_sizes_have_the_floor_that_is_asked_for(
    tiny_checkpoint: Callable[..., Path], head: str, clamp: str
) -> None:
    floored = str(tiny_checkpoint(head, family="zamba2"))
    free = str(tiny_checkpoint(head, family="zamba2", time_step_min=1e-9))  # the same weights
    model = LocalModel.load(EngineSettings(path=floored, dtype="float32", mamba_dt_clamp=clamp, max_num_seqs=4))
    try:
        found = asyncio.run(model.score(PROMPTS))
    finally:
        model.close()
    expected = Scorer.from_pretrained(free, dtype="float32").score(PROMPTS)
    is_free = [np.array_equal(mine, theirs.numpy()) for mine, theirs in zip(found, expected, strict=True)]
    assert is_free == [clamp == "none"] * len(PROMPTS)


def test_the_budget_of_online_steps_reaches_the_engine(tiny_checkpoint: Callable[..., Path]) -> None:
    settings = EngineSettings(path=str(tiny_checkpoint()), max_num_batched_tokens=8, online_batched_tokens=9)
    with pytest.raises(ConfigError, match="online_batched_tokens was 9; it must be at most max_num_batched_tokens"):
        LocalModel.load(settings)


@pytest.fixture
def threads() -> Iterator[int]:
    """How many threads a product has here; a model that is loaded sets them for the whole process."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("head", ["causal", "classifier"])
def test_a_product_has_the_threads_of_the_settings(
    threads: int, causal_path: Path, classifier_path: Path, head: str
) -> None:
    path = causal_path if head == "causal" else classifier_path
    model = LocalModel.load(EngineSettings(path=str(path), dtype="float32", num_threads=threads + 1))
    try:
        assert torch.get_num_threads() == threads + 1
    finally:
        model.close()


def test_a_model_tells_whether_it_makes_text(causal: LocalModel, classifier_path: Path) -> None:
    classifier = load(classifier_path)
    assert (causal.is_generative, classifier.is_generative) == (True, False)
    classifier.close()
