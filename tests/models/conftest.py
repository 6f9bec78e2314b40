"""Tiny checkpoints and tokenizers, written the way their publishers write them: by transformers and tokenizers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config_types import Head
from tests.models.tiny_tokenizers import KINDS

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


FAMILY_FIELDS: dict[str, dict[str, Any]] = {
    "smollm3": {"num_hidden_layers": 5, "head_dim": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "helium": {"num_attention_heads": 4, "head_dim": 8, "eos_token_id": 2},
    "qwen3": {},
    "phi3": {"head_dim": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
CLASSES = {"smollm3": "SmolLM3", "helium": "Helium", "qwen3": "Qwen3", "phi3": "Phi3"}
HEAD_CLASSES: dict[Head, str] = {
    "causal": "ForCausalLM",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}


def _save(
    folder: Path, family: str, head: Head, dtype: torch.dtype, seed: int, max_shard_size: str, fields: dict[str, Any]
) -> None:
    import transformers

    config = {name: value for name, value in (TINY | FAMILY_FIELDS[family] | fields).items() if value is not None}
    torch.manual_seed(seed)
    build = getattr(transformers, CLASSES[family] + HEAD_CLASSES[head])
    model = build(getattr(transformers, f"{CLASSES[family]}Config")(**config))
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start as ones and zeros, which would hide a forgotten one
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)


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
            _save(made[key], family, head, dtype, seed, max_shard_size, fields)
        return made[key]

    return make


@pytest.fixture(scope="session")
def qwen3_checkpoint(family_checkpoint: CheckpointMaker) -> CheckpointMaker:
    """The same for a Qwen3."""
    return partial(family_checkpoint, "qwen3")


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
