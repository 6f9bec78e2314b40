"""config.json and generation_config.json, in the spellings that are out there."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from models.config.model_config import ModelConfig
from models.config.quantization import QuantizationConfig
from models.errors import ConfigError

BNB = {"quant_method": "bitsandbytes"}

PUBLISHED = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


CLASS_DEFAULTS = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attention_bias",
    "sliding_window",
    "pad_token_id",
    "bos_token_id",
    "num_labels",
    "id2label",
    "problem_type",
]


def write(folder: Path, config: Any, generation: Any = None) -> Path:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def read(folder: Path, generation: Any = None, **fields: Any) -> ModelConfig:
    """The published config with some fields changed; a field that is `...` is left out."""
    changed = {name: value for name, value in (PUBLISHED | fields).items() if value is not ...}
    return ModelConfig.from_pretrained(write(folder, changed, generation))


def test_published_config_of_the_smallest_qwen3(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.model_type, config.architecture, config.head) == ("qwen3", "Qwen3ForCausalLM", "causal")
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (151936, 1024, 3072)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (16, 8, 128)
    assert config.num_hidden_layers == 28
    assert config.rms_norm_eps == 1e-6
    assert config.tie_word_embeddings
    assert config.dtype == "bfloat16"
    assert config.rope.kind == "default"
    assert config.rope.theta == 1e6
    assert config.sliding_window is None
    assert config.layer_types == ("full_attention",) * 28
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_ids) == (None, 151643, (151645,))


def test_an_almost_empty_config_gets_the_class_defaults(tmp_path: Path) -> None:
    from transformers import Qwen3Config

    ours, theirs = ModelConfig.from_pretrained(write(tmp_path, {"model_type": "qwen3"})), Qwen3Config()
    for name in CLASS_DEFAULTS:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert list(ours.layer_types) == theirs.layer_types
    assert theirs.rope_parameters is not None
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.head == "causal"
    assert ours.dtype == "float32"
    assert not ours.mlp_bias


def test_head_dim_does_not_follow_from_the_hidden_size(tmp_path: Path) -> None:
    assert read(tmp_path, head_dim=..., hidden_size=2560, num_attention_heads=32).head_dim == 128
    assert read(tmp_path, head_dim=None).head_dim == 128
    assert read(tmp_path, head_dim=80).head_dim == 80


ROPE_SPELLINGS: list[dict[str, Any]] = [
    {"rope_theta": 5e5},
    {"rope_theta": 5e5, "rope_scaling": {}},
    {"rope_theta": ..., "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    {"rope_theta": 1e6, "rope_parameters": {"rope_theta": 5e5}},
    {"rope_theta": 5e5, "rope_parameters": {"type": "linear", "factor": 2.0}},
    {"rope_theta": ..., "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_theta": 5e5, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    {
        "original_max_position_embeddings": 16384,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    },
    {
        "rope_scaling": {"rope_type": "linear", "factor": 3.0, "rope_theta": 7e5},
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 8e5},
    },
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
]


@pytest.mark.parametrize("fields", ROPE_SPELLINGS)
def test_rope_resolves_as_in_transformers(tmp_path: Path, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig

    ours = read(tmp_path, **fields).rope
    theirs = AutoConfig.from_pretrained(tmp_path).rope_parameters
    assert (ours.kind, ours.theta) == (theirs["rope_type"], theirs["rope_theta"])
    assert ours.parameters.get("factor") == theirs.get("factor")
    key = "original_max_position_embeddings"
    assert ours.parameters.get(key) == theirs.get(key)


def test_yarn_without_a_factor_gets_the_ratio_of_the_contexts(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 10240}
    assert read(tmp_path, rope_scaling=scaling).rope.parameters["factor"] == 4.0


def test_qwen3_ignores_a_partial_rotary_factor(tmp_path: Path) -> None:
    assert read(tmp_path, partial_rotary_factor=0.5).rope.partial_rotary_factor == 1.0


def test_new_dtype_spelling_wins_over_the_old(tmp_path: Path) -> None:
    assert read(tmp_path, dtype="float16", torch_dtype="bfloat16").dtype == "float16"
    assert read(tmp_path, dtype=None, torch_dtype="bfloat16").dtype == "bfloat16"
    assert read(tmp_path, torch_dtype=...).dtype == "float32"


WINDOWS: list[dict[str, Any]] = [
    {"use_sliding_window": False, "sliding_window": 8},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": ..., "max_window_layers": 3},
    {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 3},
    {
        "use_sliding_window": True,
        "sliding_window": 8,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
]


@pytest.mark.parametrize("fields", WINDOWS)
def test_windows_and_layer_types_are_those_of_transformers(tmp_path: Path, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig

    ours = read(tmp_path, **fields)
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert (ours.sliding_window, ours.layer_types) == (theirs.sliding_window, tuple(theirs.layer_types))


def test_stop_ids_come_from_the_generation_config_first(tmp_path: Path) -> None:
    generation = {"eos_token_id": [151645, 151643], "pad_token_id": 151643}
    assert read(tmp_path, generation).eos_token_ids == (151645, 151643)
    assert read(tmp_path, {"eos_token_id": 7}).eos_token_ids == (7,)
    assert read(tmp_path, {"temperature": 0.6}).eos_token_ids == (151645,)
    assert read(tmp_path, {}, eos_token_id=[1, 2, 1]).eos_token_ids == (1, 2)
    assert read(tmp_path, {}, eos_token_id=None).eos_token_ids == ()


def test_class_names_have_string_keys_in_json(tmp_path: Path) -> None:
    config = read(
        tmp_path, architectures=["Qwen3ForSequenceClassification"], id2label={"1": "spam", "0": "ham", "2": "?"}
    )
    assert config.head == "sequence-classification"
    assert config.num_labels == 3
    assert list(config.id2label.items()) == [(0, "ham"), (1, "spam"), (2, "?")]


def test_class_names_without_id2label(tmp_path: Path) -> None:
    assert read(tmp_path).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert read(tmp_path, num_labels=1).id2label == {0: "LABEL_0"}


def test_id2label_wins_over_num_labels_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, num_labels=5, id2label={"0": "a", "1": "b"}).num_labels == 2
    assert "id2label names 2 classes" in caplog.text


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("Qwen3ForCausalLM", "causal"),
        ("Qwen3ForSequenceClassification", "sequence-classification"),
        ("Qwen3ForTokenClassification", "token-classification"),
        ("Qwen3ForQuestionAnswering", "question-answering"),
        ("Qwen3Model", "causal"),
    ],
)
def test_architecture_tells_the_head(tmp_path: Path, architecture: str, head: str) -> None:
    assert read(tmp_path, architectures=[architecture]).head == head


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "qwen3_moe"}, ["model_type was 'qwen3_moe'", "one of smollm3, helium, qwen3, zamba2, phi3"]),
        ({"model_type": ...}, ["model_type is absent"]),
        ({"architectures": ["Qwen3ForMaskedLM"]}, ["architectures", "Qwen3ForMaskedLM", "Qwen3ForCausalLM"]),
        ({"architectures": "Qwen3ForCausalLM"}, ["architectures", "a list of strings"]),
        ({"hidden_size": "1024"}, ["hidden_size was '1024'", "whole number"]),
        ({"hidden_size": 1024.0}, ["hidden_size", "whole number"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers was 0", "from 1 to 4,096"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers", "whole number"]),
        ({"num_key_value_heads": 5}, ["num_key_value_heads was 5", "a divisor of num_attention_heads, 16"]),
        ({"num_key_value_heads": ...}, ["num_key_value_heads is absent", "32, the class default"]),
        ({"head_dim": 81}, ["head_dim was 81", "even"]),
        ({"hidden_act": "swoosh"}, ["hidden_act was 'swoosh'", "silu"]),
        ({"rms_norm_eps": -1e-6}, ["rms_norm_eps", "over 0"]),
        ({"rms_norm_eps": "1e-6"}, ["rms_norm_eps", "over 0"]),
        ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings was 'yes'", "true or false"]),
        ({"torch_dtype": "float64"}, ["torch_dtype was 'float64'", "bfloat16, float16, float32"]),
        ({"dtype": "int8"}, ["dtype was 'int8'"]),
        ({"rope_theta": 0}, ["rope_theta was 0"]),
        ({"rope_scaling": "linear"}, ["rope_scaling was 'linear'", "an object"]),
        ({"rope_scaling": {"type": "su", "factor": 2}}, ["rope_scaling.type was 'su'", "yarn"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling.factor is absent", "linear"]),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, ["short_factor", "a list of 64 numbers"]),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, ["rope_parameters", "each layer type"]),
        ({"layer_types": ["full_attention"]}, ["layer_types", "(28)"]),
        ({"layer_types": ["linear_attention"] * 28}, ["layer_types", "full_attention and sliding_attention"]),
        ({"layer_types": ["sliding_attention"] * 28}, ["layer_types", "no sliding_window"]),
        ({"use_sliding_window": True, "sliding_window": 0}, ["sliding_window was 0"]),
        ({"eos_token_id": "</s>"}, ["eos_token_id was '</s>'", "token id"]),
        ({"pad_token_id": -1}, ["pad_token_id was -1", "from 0 to"]),
        ({"id2label": {"0": "a", "2": "b"}}, ["id2label", "keys 0 to 1"]),
        ({"id2label": {"a": "0"}}, ["id2label", "class numbers to class names"]),
        ({"num_labels": 0}, ["num_labels was 0"]),
        ({"problem_type": "ranking"}, ["problem_type was 'ranking'", "regression"]),
        (
            {"quantization_config": {"quant_method": "awq"}},
            ["quantization_config.quant_method was 'awq'", "unquantized"],
        ),
        ({"quantization_config": {"bits": 4}}, ["quantization_config.quant_method is absent", "bitsandbytes"]),
        ({"quantization_config": BNB}, ["quantization_config.load_in_8bit", "load_in_4bit"]),
        (
            {"quantization_config": BNB | {"load_in_4bit": True, "bnb_4bit_quant_type": "nf3"}},
            ["bnb_4bit_quant_type was 'nf3'", "nf4, fp4"],
        ),
        (
            {"quantization_config": BNB | {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float8"}},
            ["bnb_4bit_compute_dtype was 'float8'"],
        ),
        (
            {"quantization_config": BNB | {"load_in_8bit": True, "llm_int8_threshold": -1}},
            ["llm_int8_threshold was -1", "0 or more"],
        ),
        (
            {"quantization_config": BNB | {"load_in_8bit": True, "llm_int8_has_fp16_weight": True}},
            ["llm_int8_has_fp16_weight was True"],
        ),
    ],
)
def test_a_bad_value_is_named_with_file_field_and_what_is_allowed(
    tmp_path: Path, fields: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **fields)
    assert str(tmp_path / "config.json") in str(caught.value)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, None),
        ({}, None),
        (BNB | {"load_in_8bit": True}, QuantizationConfig(method="int8", int8_threshold=6.0)),
        ({"load_in_8bit": True, "llm_int8_threshold": 0}, QuantizationConfig(method="int8", int8_threshold=0.0)),
        (
            BNB | {"_load_in_4bit": True, "_load_in_8bit": False},
            QuantizationConfig(method="fp4", double_quantization=False, compute_dtype="float32"),
        ),
        (
            BNB
            | {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
                "bnb_4bit_compute_dtype": "bfloat16",
                "llm_int8_skip_modules": ["lm_head"],
            },
            QuantizationConfig(method="nf4", double_quantization=True, compute_dtype="bfloat16"),
        ),
    ],
)
def test_how_a_checkpoint_is_quantized_is_read(tmp_path: Path, saved: Any, expected: QuantizationConfig | None) -> None:
    assert read(tmp_path, quantization_config=saved).quantization == expected


def test_a_bad_generation_config_names_that_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id"):
        read(tmp_path, {"eos_token_id": [1, "a"]})


@pytest.mark.parametrize("text", ["{", "", "\x00"])
def test_broken_json_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is not valid JSON"):
        ModelConfig.from_pretrained(write(tmp_path, text))


def test_json_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds list; it must hold one JSON object"):
        ModelConfig.from_pretrained(write(tmp_path, []))


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        ModelConfig.from_pretrained(tmp_path)


def test_a_folder_without_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        ModelConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        ModelConfig.from_pretrained(tmp_path / "elsewhere")


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, PUBLISHED)
    with pytest.raises(ConfigError, match="is not a folder"):
        ModelConfig.from_pretrained(tmp_path / "config.json")


def test_a_config_travels_between_processes(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert pickle.loads(pickle.dumps(config)) == config
