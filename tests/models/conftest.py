"""Tiny checkpoints and tokenizers, written the way their publishers write them: by transformers and tokenizers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config_types import Head
from tests.models.tiny_tokenizers import KINDS
from tests.models.tiny_zamba2 import save_zamba2

TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
CheckpointMaker = Callable[..., Path]


def _save_qwen3(
    folder: Path, head: Head, dtype: torch.dtype, seed: int, max_shard_size: str, fields: dict[str, Any]
) -> None:
    from transformers import (
        Qwen3Config,
        Qwen3ForCausalLM,
        Qwen3ForQuestionAnswering,
        Qwen3ForSequenceClassification,
        Qwen3ForTokenClassification,
    )

    classes: dict[Head, Any] = {
        "causal": Qwen3ForCausalLM,
        "sequence-classification": Qwen3ForSequenceClassification,
        "token-classification": Qwen3ForTokenClassification,
        "question-answering": Qwen3ForQuestionAnswering,
    }
    torch.manual_seed(seed)
    model = classes[head](Qwen3Config(**TINY | fields))
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start as ones and zeros, which would hide a forgotten one
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)


@pytest.fixture(scope="session")
def qwen3_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function (head, dtype, seed, max_shard_size, **config fields) -> folder of a tiny random Qwen3.

    Equal calls share one folder: a test that changes files copies it first.
    """
    made: dict[str, Path] = {}

    def make(
        head: Head = "causal",
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        max_shard_size: str = "1GB",
        **fields: Any,
    ) -> Path:
        key = repr((head, dtype, seed, max_shard_size, sorted(fields.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("qwen3")
            _save_qwen3(made[key], head, dtype, seed, max_shard_size, fields)
        return made[key]

    return make


@pytest.fixture(scope="session")
def zamba2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function (head, dtype, seed, **config fields) -> folder of a tiny random Zamba2, shared by equal calls."""
    made: dict[str, Path] = {}

    def make(head: Head = "causal", *, dtype: torch.dtype = torch.float32, seed: int = 1, **fields: Any) -> Path:
        key = repr((head, dtype, seed, sorted(fields.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("zamba2")
            save_zamba2(made[key], head, dtype=dtype, seed=seed, fields=fields)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: kind of tokenizer (see tiny_tokenizers.KINDS) -> folder with its files, shared by all tests."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            KINDS[kind](made[kind])
        return made[kind]

    return make
