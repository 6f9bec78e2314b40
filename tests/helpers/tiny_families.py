"""The families as tests know them: a row says how transformers writes one, and which variations of it are held against it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from models.config.types import Head
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
HEAD_CLASSES: dict[Head, str] = {
    "causal": "ForCausalLM",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}


class Save(Protocol):
    """Writes a random checkpoint; `fields` of its configuration win over those of the row."""

    def __call__(
        self, folder: Path, head: Head, *, dtype: torch.dtype, seed: int, max_shard_size: str, fields: dict[str, Any]
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TinyFamily:
    """One family.

    `prefix` is that of its classes in transformers, which has none for the heads that are `missing`. `fields` are those of its
    tiny configuration that are not `TINY`'s; None leaves one out. `shapes` are held against transformers with all heads and in
    generation; a hybrid has tests of its own. `window` makes its layers slide. One that `is_sharp` has
    distributions without ties as it is. Weights of `formula_seed` have no scale of a block midway between two codes.
    """

    prefix: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    missing: tuple[Head, ...] = ()
    window: Mapping[str, Any] = field(default_factory=dict)
    is_sharp: bool = False
    formula_seed: int = 0
    is_hybrid: bool = False
    save: Save | None = None

    @property
    def config_class(self) -> Any:
        return self.published("Config")

    def published(self, suffix: str) -> Any:
        """A class of the family in transformers."""
        import transformers

        return getattr(transformers, self.prefix + suffix)

    @property
    def writer(self) -> Save:
        return self.save or partial(_save_dense, self)


def _save_dense(
    family: TinyFamily,
    folder: Path,
    head: Head,
    *,
    dtype: torch.dtype,
    seed: int,
    max_shard_size: str,
    fields: dict[str, Any],
) -> None:
    config = {name: value for name, value in {**TINY, **family.fields, **fields}.items() if value is not None}
    torch.manual_seed(seed)
    model = family.published(HEAD_CLASSES[head])(family.config_class(**config))
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start as ones and zeros, which would hide a forgotten one
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [2.0, 3.0, 5.0, 9.0],
}

FAMILIES: dict[str, TinyFamily] = {
    "smollm3": TinyFamily(
        prefix="SmolLM3",
        fields={"num_hidden_layers": 5, "head_dim": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        shapes={
            "plain": {},
            "tied": {"tie_word_embeddings": True},
            "untied": {"tie_word_embeddings": False},
            "rotation on listed layers": {"no_rope_layers": [0, 1, 1, 0, 0]},
            "rotation on every other layer": {"no_rope_layer_interval": 2},
            "biases": {"attention_bias": True, "mlp_bias": True},
            "its own head_dim": {"head_dim": 16},
            "layers without rotation slide": {
                "use_sliding_window": True, "sliding_window": 6, "no_rope_layer_interval": 2,
            },
            "large eps": {"rms_norm_eps": 1e-2},
        },
    ),
    "helium": TinyFamily(
        prefix="Helium",
        fields={"num_attention_heads": 4, "head_dim": 8, "eos_token_id": 2},
        missing=("question-answering",),
        shapes={
            "plain": {},
            "biases": {"attention_bias": True, "mlp_bias": True},
            "grouped": {"num_key_value_heads": 1},
            "tied": {"tie_word_embeddings": True},
            "large eps": {"rms_norm_eps": 1e-2},
        },
    ),
    "qwen3": TinyFamily(
        prefix="Qwen3",
        fields={},
        shapes={
            "plain": {},
            "heads wider than hidden": {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 16},
            "one key/value head": {"num_key_value_heads": 1},
            "as many key/value heads": {"num_key_value_heads": 4},
            "biases": {"attention_bias": True},
            "tied": {"tie_word_embeddings": True},
            "head_dim 80": {"head_dim": 80},
            "large eps": {"rms_norm_eps": 1e-2},
            "other theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
            "gelu": {"hidden_act": "gelu_pytorch_tanh"},
            "a layer that slides": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
            "layers listed": {
                "use_sliding_window": True,
                "sliding_window": 5,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
            "yarn": {
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
                },
            },
            "llama3": {
                "rope_parameters": {
                    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
            },
        },
    ),
    "zamba2": TinyFamily(
        prefix="Zamba2",
        save=save_zamba2,
        is_hybrid=True,
        missing=("token-classification", "question-answering"),
        is_sharp=True,
    ),
    "phi3": TinyFamily(
        prefix="Phi3",
        fields={"head_dim": None, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        missing=("question-answering",),
        window={"sliding_window": 8},
        shapes={
            "plain": {},
            "its own head_dim": {"head_dim": 16},
            "as many key/value heads": {"num_key_value_heads": 4},
            "tied": {"tie_word_embeddings": True},
            "part of each head": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
            "every layer slides": {"sliding_window": 10},
            "longrope": {"original_max_position_embeddings": 33, "rope_parameters": LONGROPE},
            "longrope on part of each head": {
                "original_max_position_embeddings": 64,
                "head_dim": 16,
                "hidden_size": 64,
                "rope_parameters": LONGROPE | {
                    "partial_rotary_factor": 0.75,
                    "short_factor": [1.0, 1.1, 1.3, 1.7, 1.8, 1.9],
                    "long_factor": [2.0, 3.0, 5.0, 9.0, 11.0, 12.0],
                },
            },
        },
    ),
    "llama": TinyFamily(
        prefix="Llama",
        fields={"head_dim": None, "pad_token_id": 0},
        shapes={
            "plain": {},
            "its own head_dim": {"head_dim": 16},
            "as many key/value heads": {"num_key_value_heads": None},
            "biases": {"attention_bias": True, "mlp_bias": True},
            "tied": {"tie_word_embeddings": True},
            "llama3": {
                "head_dim": 16,
                "rope_parameters": {
                    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
            },
            "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        },
    ),
    "mistral": TinyFamily(
        prefix="Mistral",
        fields={"head_dim": None, "pad_token_id": 0},
        window={"sliding_window": 8},
        shapes={
            "plain": {},
            "no window": {"sliding_window": None},
            "a short window": {"sliding_window": 7},
            "its own head_dim": {"head_dim": 16},
            "tied": {"tie_word_embeddings": True},
        },
    ),
    "qwen2": TinyFamily(
        prefix="Qwen2",
        fields={"head_dim": None},
        formula_seed=3,
        shapes={
            "plain": {},
            "tied": {"tie_word_embeddings": True},
            "one key/value head": {"num_key_value_heads": 1},
            "a layer that slides": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
            "yarn": {
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32,
                },
            },
        },
    ),
}  # fmt: skip
DENSE = [name for name, family in FAMILIES.items() if not family.is_hybrid]
