"""Tiny random checkpoints of every family, written the way their publishers write them: by transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.config.types import Head
from tests.helpers.models import tiny_tokenizers
from tests.helpers.tiny_families import FAMILIES


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
    """Writes a random checkpoint of a row's sizes; `fields` of its configuration win, and None leaves one out."""
    FAMILIES[family].writer(folder, head, dtype=dtype, seed=seed, max_shard_size=max_shard_size, fields=dict(fields))


def save_with_tokenizer(folder: Path, family: str, head: Head, fields: Mapping[str, Any]) -> None:
    """The same with a byte-level tokenizer of 512 tokens."""
    tiny_tokenizers.qwen(folder)
    save_checkpoint(folder, family, head, {"vocab_size": 512, **fields})
