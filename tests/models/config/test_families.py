"""What each family's configuration class fills in, and which near namesakes are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.config import families as config_families
from models.config.model_config import ModelConfig
from models.config.option import declared
from models.errors import ConfigError, OptionError
from tests.helpers.tiny_families import FAMILIES

SAME = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "pad_token_id", "bos_token_id",
]  # fmt: skip


def read(folder: Path, **fields: Any) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(fields))
    return ModelConfig.from_pretrained(folder)


def test_every_family_has_a_row_that_tests_know_it_by() -> None:
    assert FAMILIES.keys() == config_families.FAMILIES.keys()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_code_but_its_own_knows_a_family_by_its_name(family: str) -> None:
    """Its file and its row do, and the row's own rules."""
    root, row = Path(__file__).parents[3], "models/config/families.py"
    files = [path for package in ("models", "actors", "pipelines") for path in (root / package).rglob("*.py")]
    found = {str(path.relative_to(root)) for path in files if f'"{family}"' in path.read_text()}
    assert found == {row}
    assert (root / f"models/networks/{family}.py").exists()


def test_an_option_that_several_families_have_is_one_option() -> None:
    known = config_families.family_options()
    for family in config_families.FAMILIES.values():
        for name, option in declared(family.options).items():
            assert known[name] == option
            assert option.default is not None
            assert option.problem(option.default) is None


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {}),
        ({"mamba_dt_clamp": "prefill"}, {}),
        ({"mamba_dt_clamp": "none"}, {"mamba_dt_clamp": "none"}),
        ({"depth": 2}, {"depth": 2}),
    ],
)
def test_an_option_that_is_given_its_default_asks_for_nothing(given: dict[str, Any], asked: dict[str, Any]) -> None:
    assert config_families.asked(given) == asked
    assert config_families.with_old_spelling(given, "prefill") == given


def test_the_old_spelling_of_an_option_is_that_option() -> None:
    assert config_families.with_old_spelling({"depth": 2}, "both") == {"depth": 2, "mamba_dt_clamp": "both"}
    with pytest.raises(OptionError, match="mamba_dt_clamp stands beside the model's options, which have it too"):
        config_families.with_old_spelling({"mamba_dt_clamp": "none"}, "both")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_an_empty_file_gives_the_defaults_of_the_class(tmp_path: Path, family: str) -> None:
    ours, theirs = read(tmp_path, model_type=family), FAMILIES[family].config_class()
    assert {name: getattr(ours, name) for name in SAME} == {name: getattr(theirs, name) for name in SAME}
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert (ours.head_dim, ours.rope.theta) == (head_dim, theirs.rope_parameters["rope_theta"])
    assert ours.eos_token_ids == (() if theirs.eos_token_id is None else (theirs.eos_token_id,))
    assert ours.head == "causal"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_transformers_writes_is_read_back(tmp_path: Path, family: str) -> None:
    FAMILIES[family].config_class(num_labels=3, pad_token_id=5).save_pretrained(tmp_path)
    ours = ModelConfig.from_pretrained(tmp_path)
    assert (ours.model_type, ours.num_labels, ours.pad_token_id) == (family, 3, 5)


def test_smollm3_layers_rotate_as_its_class_says(tmp_path: Path) -> None:
    assert read(tmp_path, model_type="smollm3").rotated_layers == (True, True, True, False) * 9
    every_other = read(tmp_path, model_type="smollm3", num_hidden_layers=4, no_rope_layer_interval=2)
    assert every_other.rotated_layers == (True, False, True, False)
    fields = {"num_hidden_layers": 3, "no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 8}
    listed = read(tmp_path, model_type="smollm3", **fields)
    assert listed.rotated_layers == (False, True, False)
    assert listed.layer_types == ("sliding_attention", "full_attention", "sliding_attention")


def test_every_phi3_layer_slides_or_none(tmp_path: Path) -> None:
    assert set(read(tmp_path, model_type="phi3", sliding_window=2047).layer_types) == {"sliding_attention"}
    assert set(read(tmp_path, model_type="phi3").layer_types) == {"full_attention"}


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_phi3_calls_longrope_by_three_names(tmp_path: Path, kind: str) -> None:
    scaling = {"type": kind, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    rope = read(tmp_path, model_type="phi3", rope_scaling=scaling, max_position_embeddings=131072).rope
    assert (rope.kind, rope.parameters["original_max_position_embeddings"]) == ("longrope", 4096)


def test_zamba2_reads_its_mixers(tmp_path: Path) -> None:
    fields = {"n_mamba_heads": 80, "num_mem_blocks": 2, "mamba_d_state": 64, "mamba_ngroups": 1, "use_mem_rope": True}
    config = read(tmp_path, model_type="zamba2", **fields)
    assert config.mamba is not None
    assert (config.mamba.inner_size, config.mamba.head_dim, config.mamba.conv_width) == (5120, 64, 4)
    assert config.shared_blocks is not None
    assert config.shared_blocks.num_blocks == 2
    hybrids = [index for index, kind in enumerate(config.layer_types) if kind == "hybrid"]
    assert hybrids == [6, 12, 18, 24, 30, 36, 42, 47, 51]
    assert [index for index, is_rotated in enumerate(config.rotated_layers) if is_rotated] == hybrids
    assert (config.head_dim, config.hidden_act) == (160, "gelu")
    assert read(tmp_path, model_type="zamba2", use_long_context=True).max_position_embeddings == 16384


@pytest.mark.parametrize("name", ["mamba", "linear_attention"])
@pytest.mark.parametrize("key", ["layers_block_type", "layer_types"])
def test_zamba2_layers_have_two_spellings(tmp_path: Path, key: str, name: str) -> None:
    config = read(tmp_path, model_type="zamba2", num_hidden_layers=3, **{key: [name, "hybrid", name]})
    assert config.layer_types == ("mamba", "hybrid", "mamba")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "phi3small"}, ["Phi-3-small", "another network"]),
        ({"model_type": "phimoe"}, ["Phi-3.5-MoE", "another network"]),
        ({"model_type": "phi4mm"}, ["Phi-4-multimodal"]),
        ({"model_type": "phi4flash"}, ["Phi-4-mini-flash"]),
        ({"model_type": "qwen3_moe"}, ["Qwen3-MoE"]),
        ({"model_type": "zamba2_vl"}, ["Zamba2-VL"]),
        ({"model_type": "gemma"}, ["model_type was 'gemma'", "one of smollm3, helium, qwen3, zamba2, phi3"]),
        ({"model_type": "helium", "num_attention_heads": 10}, ["head_dim", "2560 / num_attention_heads"]),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, ["no_rope_layers", "list of 36 numbers"]),
        ({"model_type": "smollm3", "no_rope_layers": [2] * 36}, ["no_rope_layers", "1 for a layer with rotary"]),
        ({"model_type": "phi3", "rope_scaling": {"type": "linear", "factor": 2.0}}, ["default, longrope, su, yarn"]),
        ({"model_type": "phi3", "rope_scaling": {"type": "yarn", "factor": 2.0}}, ["short_factor", "longrope"]),
        ({"model_type": "phi3", "partial_rotary_factor": 1.5}, ["partial_rotary_factor", "at most 1"]),
        ({"model_type": "zamba2", "num_hidden_layers": 3}, ["layer_types", "default is one of 54"]),
        ({"model_type": "zamba2", "layers_block_type": ["m"] * 54}, ["layers_block_type", "mamba, linear_attention"]),
        ({"model_type": "zamba2", "n_mamba_heads": 7}, ["n_mamba_heads", "divisor of mamba_expand"]),
        ({"model_type": "zamba2", "mamba_ngroups": 3}, ["mamba_ngroups", "divisor of n_mamba_heads"]),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **fields)
    for part in said:
        assert part in str(caught.value)
