"""A model in one process, for online requests: it is loaded as its settings say."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.online_engine import LocalModel
from actors.work import EngineSettings
from models import Scorer
from models.errors import ConfigError

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
