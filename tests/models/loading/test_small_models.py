"""Models of few weights, counted as transformers counts their parameters, and what is said of them in four bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, SmolLM3Config

from models.config.model_config import ModelConfig
from models.config.quantization import QuantizationConfig
from models.loading.small_models import caution_of_four_bits, num_weights
from tests.helpers.models.quantized import save_quantized
from tests.helpers.tiny_families import FAMILIES

CheckpointMaker = Callable[..., Path]
SMOLLM2_135M: dict[str, Any] = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "tie_word_embeddings": True, "pad_token_id": 0, "no_rope_layers": [1] * 30,
}  # fmt: skip
"""The sizes of HuggingFaceTB/SmolLM2-135M, whose card says 135M."""


def save_config(folder: Path, **changes: Any) -> ModelConfig:
    """A published configuration alone, without weights."""
    SmolLM3Config(architectures=["SmolLM3ForCausalLM"], **(SMOLLM2_135M | changes)).save_pretrained(folder)
    return ModelConfig.from_pretrained(folder)


def parameters_of(folder: Path) -> int:
    """As transformers builds the network, shared weights counted once."""
    with torch.device("meta"):
        published: Any = AutoModelForCausalLM
        return int(published.from_config(AutoConfig.from_pretrained(folder)).num_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_as_many_as_transformers_counts(family: str, tiny_checkpoint: CheckpointMaker) -> None:
    folder = tiny_checkpoint("causal", family=family)
    expected = AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    assert num_weights(ModelConfig.from_pretrained(folder)) == expected


def test_a_classifiers_weights_are_counted_with_its_head(tiny_checkpoint: CheckpointMaker) -> None:
    folder = tiny_checkpoint("sequence-classification", num_labels=5, pad_token_id=0)
    expected = AutoModelForSequenceClassification.from_pretrained(folder).num_parameters()
    assert num_weights(ModelConfig.from_pretrained(folder)) == expected


def test_the_model_of_the_measurement_has_135_million(tmp_path: Path) -> None:
    config = save_config(tmp_path)
    assert num_weights(config) == parameters_of(tmp_path)
    assert round(num_weights(config) / 1e6) == 135


@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_four_bits_of_a_small_model_are_warned_of(tmp_path: Path, method: str) -> None:
    config = save_config(tmp_path)
    for asked in (method, QuantizationConfig(method=method)):  # type: ignore[arg-type]
        said = caution_of_four_bits(config, asked)
        assert said is not None
        assert f"{method} holds {parameters_of(tmp_path):,} weights in 4 bits" in said
        assert "nf4 kept 16% of float32's labels on a 135M model; int8 89%" in said
        assert "use int8, or leave it out" in said


@pytest.mark.parametrize("asked", [None, "int8"])
def test_more_bits_are_not(tmp_path: Path, asked: str | None) -> None:
    assert caution_of_four_bits(save_config(tmp_path), asked) is None


@pytest.mark.parametrize(("layers", "is_small"), [(274, True), (275, False)])
def test_the_bound_is_a_billion_weights(tmp_path: Path, layers: int, is_small: bool) -> None:
    config = save_config(tmp_path, num_hidden_layers=layers, no_rope_layers=[1] * layers)
    assert (parameters_of(tmp_path) < 1_000_000_000) is is_small
    assert (caution_of_four_bits(config, "nf4") is not None) is is_small


def test_a_checkpoint_that_is_saved_in_four_bits_is_counted_unpacked(
    tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("causal")
    expected = num_weights(ModelConfig.from_pretrained(folder))
    save_quantized(folder, "causal", {"method": "nf4"}, tmp_path / "saved")
    config = ModelConfig.from_pretrained(tmp_path / "saved")
    said = caution_of_four_bits(config, None)
    assert said is not None
    assert f"nf4 holds {expected:,} weights" in said
    assert "give the unquantized checkpoint" in said
