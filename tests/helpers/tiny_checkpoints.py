"""Tiny random checkpoints of every family, written the way their publishers write them: by transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.config.types import Head
from tests.helpers.models import tiny_tokenizers
from tests.helpers.models.tiny_zamba2 import save_zamba2

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
FAMILIES = ("smollm3", "helium", "qwen3", "zamba2", "phi3", "llama", "mistral", "qwen2")
FAMILY_FIELDS: dict[str, dict[str, Any]] = {
    "smollm3": {"num_hidden_layers": 5, "head_dim": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "helium": {"num_attention_heads": 4, "head_dim": 8, "eos_token_id": 2},
    "qwen3": {},
    "phi3": {"head_dim": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "llama": {"head_dim": None, "pad_token_id": 0},
    "mistral": {"head_dim": None, "pad_token_id": 0},
    "qwen2": {"head_dim": None},
}
CLASSES = {
    "smollm3": "SmolLM3",
    "helium": "Helium",
    "qwen3": "Qwen3",
    "phi3": "Phi3",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
}
HEAD_CLASSES: dict[Head, str] = {
    "causal": "ForCausalLM",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}


def save_checkpoint(
    folder: Path,
    family: str,
    head: Head,
    fields: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    max_shard_size: str = "1GB",
) -> None:
    """Writes a random checkpoint of `TINY` sizes; `fields` of its configuration win, and None leaves one out."""
    if family == "zamba2":
        save_zamba2(folder, head, dtype=dtype, seed=seed, fields=dict(fields))
        return
    import transformers

    config = {name: value for name, value in {**TINY, **FAMILY_FIELDS[family], **fields}.items() if value is not None}
    torch.manual_seed(seed)
    build = getattr(transformers, CLASSES[family] + HEAD_CLASSES[head])
    model = build(getattr(transformers, f"{CLASSES[family]}Config")(**config))
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start as ones and zeros, which would hide a forgotten one
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)


def save_with_tokenizer(folder: Path, family: str, head: Head, fields: Mapping[str, Any]) -> None:
    """The same with a byte-level tokenizer of 512 tokens."""
    tiny_tokenizers.qwen(folder)
    save_checkpoint(folder, family, head, {"vocab_size": 512, **fields})
