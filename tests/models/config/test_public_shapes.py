"""The public checkpoints by their configurations, built without storage: every tensor they publish has its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from models.config.model_config import ModelConfig
from models.networks.decoder import BuildOptions
from models.networks.families import build_decoder
from models.networks.heads import Model
from models.parallel.tensor_parallel import TensorParallel
from models.weights.loadable import Loadable
from tests.helpers.matrix import first_quick
from tests.helpers.models.paged import BACKEND

QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936,
         "max_position_embeddings": 40960, "rope_theta": 1000000, "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16", "hidden_act": "silu",
         "attention_bias": False, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 28}  # fmt: skip
PHI3 = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "rms_norm_eps": 1e-5, "vocab_size": 32064, "rope_theta": 10000.0,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
        "attention_bias": False, "hidden_act": "silu", "resid_pdrop": 0.0, "embd_pdrop": 0.0}  # fmt: skip
LONG = {"type": "longrope", "long_factor": [2.0] * 48, "short_factor": [1.0] * 48}


def qwen3(layers: int, hidden: int, heads: int, size: int, *, tied: bool, **fields: Any) -> dict[str, Any]:
    shape = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": size,
    }
    return QWEN3 | shape | {"tie_word_embeddings": tied} | fields


def phi3(layers: int, hidden: int, heads: int, kv_heads: int, size: int, **fields: Any) -> dict[str, Any]:
    shape = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": size,
    }
    return PHI3 | shape | {"num_key_value_heads": kv_heads} | fields


PUBLIC: dict[str, tuple[dict[str, Any], int]] = {
    "SmolLM3-3B": (
        {
            "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "num_hidden_layers": 36, "hidden_size": 2048,
            "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 11008, "vocab_size": 128256,
            "rope_theta": 5000000.0, "rope_scaling": None, "max_position_embeddings": 65536, "tie_word_embeddings": True,
            "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 9, "sliding_window": None, "use_sliding_window": False,
            "layer_types": ["full_attention"] * 36, "attention_bias": False, "mlp_bias": False, "eos_token_id": 128012,
        },
        3_075_098_624,
    ),
    "helium-1-preview-2b": (
        {
            "model_type": "helium", "architectures": ["HeliumForCausalLM"], "num_hidden_layers": 24, "hidden_size": 2560,
            "num_attention_heads": 20, "num_key_value_heads": 20, "head_dim": 128, "intermediate_size": 7040, "vocab_size": 48000,
            "rope_theta": 100000.0, "max_position_embeddings": 4096, "tie_word_embeddings": False, "rms_norm_eps": 1e-8,
        },
        2_172_643_840,
    ),
    "Qwen3-0.6B": (qwen3(28, 1024, 16, 3072, tied=True), 596_049_920),
    "Qwen3-1.7B": (qwen3(28, 2048, 16, 6144, tied=True), 1_720_574_976),
    "Qwen3-4B": (qwen3(36, 2560, 32, 9728, tied=True), 4_022_468_096),
    "Qwen3-8B": (qwen3(36, 4096, 32, 12288, tied=False), 8_190_735_360),
    "Qwen3-14B": (qwen3(40, 5120, 40, 17408, tied=False), 14_768_307_200),
    "Qwen3-32B": (qwen3(64, 5120, 64, 25600, tied=False), 32_762_123_264),
    "Phi-3-mini-4k": (phi3(32, 3072, 32, 32, 8192, sliding_window=2047), 3_821_079_552),
    "Phi-3.5-mini": (
        phi3(32, 3072, 32, 32, 8192, sliding_window=262144, max_position_embeddings=131072, rope_scaling=LONG),
        3_821_079_552,
    ),
    "Phi-3-medium-4k": (phi3(40, 5120, 40, 10, 17920, sliding_window=2047), 13_960_238_080),
    "Phi-4": (
        phi3(40, 5120, 40, 10, 17920, vocab_size=100352, rope_theta=250000, max_position_embeddings=16384, sliding_window=None),
        14_659_507_200,
    ),
    "Phi-4-mini": (
        phi3(
            32, 3072, 24, 8, 8192, vocab_size=200064, tie_word_embeddings=True, partial_rotary_factor=0.75,
            max_position_embeddings=131072, sliding_window=262144, rope_scaling=LONG,
        ),
        3_836_021_760,
    ),
}  # fmt: skip


def built(folder: Path, tp: TensorParallel | None = None) -> Model:
    """The network of a configuration, without storage."""
    config = ModelConfig.from_pretrained(folder)
    options = BuildOptions(backend=BACKEND, max_model_len=64, **({} if tp is None else {"tp": tp}))
    return Model(build_decoder(config, options), config.head, is_tied=config.tie_word_embeddings)


def written(folder: Path, fields: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize("name", list(PUBLIC))
def test_a_public_checkpoint_is_exactly_what_is_asked_for(name: str, tmp_path: Path) -> None:
    fields, num_parameters = PUBLIC[name]
    folder = written(tmp_path, fields)
    slots = [slot for layer in built(folder).modules() if isinstance(layer, Loadable) for slot in layer.slots()]
    asked = {slot.name: slot.shape for slot in slots}
    with torch.device("meta"):
        build: Any = transformers.AutoModelForCausalLM
        oracle = build.from_config(transformers.AutoConfig.from_pretrained(folder))
    published = {key.removeprefix("model."): tuple(value.shape) for key, value in oracle.state_dict().items()}
    if fields["tie_word_embeddings"]:
        del published["lm_head.weight"]
    assert asked == published
    assert sum(torch.Size(shape).numel() for shape in asked.values()) == num_parameters


@pytest.mark.parametrize("size", first_quick([8, 2, 4]))
@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "helium-1-preview-2b"])
def test_the_ranks_of_a_public_checkpoint_cover_every_tensor(name: str, size: int, tmp_path: Path) -> None:
    """Every channel of every tensor is some rank's, and what is split and not copied is one rank's alone."""
    folder = written(tmp_path, PUBLIC[name][0])
    held: dict[str, np.ndarray] = {}
    axes: dict[str, int] = {}
    for rank in range(size):
        for layer in built(folder, TensorParallel(rank=rank, size=size)).modules():
            for slot in layer.slots() if isinstance(layer, Loadable) else ():
                axis = next((axis for axis, part in enumerate(slot.source) if part != (0, slot.shape[axis])), 0)
                assert axes.setdefault(slot.name, axis) == axis
                ranks = held.setdefault(slot.name, np.zeros((size, slot.shape[axis]), dtype=bool))
                ranks[rank, slice(*slot.source[axis])] = True
    for tensor, ranks in held.items():
        assert ranks.any(axis=0).all(), tensor
        is_copied = "norm" in tensor or "k_proj" in tensor or "v_proj" in tensor or "qkv" in tensor
        assert is_copied or (ranks.sum(axis=0) == 1).all(), tensor
