"""Tiny checkpoints and tokenizers for the tests of models, each made once."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config.types import Head
from models.layers.kernels import agreement, attention_kernels, compiled, products, quantized_codes
from tests.helpers.tiny_checkpoints import save_checkpoint

CheckpointMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def family_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function (family, head, dtype, seed, max_shard_size, **config fields) -> folder of a tiny random checkpoint.

    Equal calls share one folder: a test that changes files copies it first.
    """
    made: dict[str, Path] = {}

    def make(
        family: str,
        head: Head = "causal",
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        max_shard_size: str = "1GB",
        **fields: Any,
    ) -> Path:
        key = repr((family, head, dtype, seed, max_shard_size, sorted(fields.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family)
            save_checkpoint(made[key], family, head, fields, dtype=dtype, seed=seed, max_shard_size=max_shard_size)
        return made[key]

    return make


@pytest.fixture(scope="session")
def qwen3_checkpoint(family_checkpoint: CheckpointMaker) -> CheckpointMaker:
    """The same for a Qwen3."""
    return partial(family_checkpoint, "qwen3")


@pytest.fixture(scope="session")
def zamba2_checkpoint(family_checkpoint: CheckpointMaker) -> CheckpointMaker:
    """The same for a Zamba2, with a seed of its own."""
    return partial(family_checkpoint, "zamba2", seed=1)


@pytest.fixture
def fresh_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels are compared with plain torch again, in this test and after it, and what disagrees is said again."""
    modules = (attention_kernels, compiled, products, quantized_codes)
    decisions = [each for module in modules for each in vars(module).values() if hasattr(each, "cache_clear")]
    monkeypatch.setattr(agreement, "_said", set())
    for decision in decisions:
        decision.cache_clear()
    yield
    for decision in decisions:
        decision.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, fresh_kernels: None) -> None:
    """What is loaded in this test is computed by torch and its libraries, as where nothing can be compiled."""
    monkeypatch.setattr(compiled, "native_library", lambda: None)
