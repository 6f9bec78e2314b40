"""Rotary embedding against transformers' own."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Phi3Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding, apply_rotary_pos_emb

from models.config.model_config import ModelConfig
from models.config.types import RopeConfig
from models.layers.rotary.kinds import frequencies
from models.layers.rotary.rotation import Rotary, rotate

POSITIONS = torch.tensor([0, 1, 2, 63, 5, 1000, 4095, 5])
CPU = torch.device("cpu")


def rope(theta: float, kind: str = "default") -> RopeConfig:
    return RopeConfig(kind=kind, theta=theta, max_positions=64, parameters={})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("theta", "head_dim"), [(10000.0, 16), (1e6, 128), (123.0, 80), (5e5, 2)])
def test_a_rotation_is_that_of_transformers(dtype: torch.dtype, theta: float, head_dim: int) -> None:
    config = Qwen3Config(head_dim=head_dim, rope_parameters={"rope_type": "default", "rope_theta": theta})
    reference: Any = Qwen3RotaryEmbedding(config)
    x = torch.randn(len(POSITIONS), 3, head_dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = reference(x[None], POSITIONS[None])
    expected, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)
    rotary = Rotary(rope(theta), head_dim, 4096)
    rotary.materialize(dtype=dtype, device=CPU)
    found = rotate(x, rotary(POSITIONS))
    assert found.dtype == dtype
    tolerance = 2e-6 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(found, expected[0].transpose(0, 1), atol=tolerance, rtol=tolerance)


def test_the_input_is_kept_and_may_be_a_view() -> None:
    rotary = Rotary(rope(10000.0), 16, 8)
    rotary.materialize(dtype=torch.float32, device=CPU)
    fused = torch.randn(4, 6, 16, generator=torch.Generator().manual_seed(0))
    before, view = fused.clone(), fused[:, 1:4]
    rotation = rotary(torch.arange(4))
    assert torch.equal(rotate(view, rotation), rotate(view.contiguous(), rotation))
    assert torch.equal(fused, before)


def test_position_zero_is_not_turned_and_lengths_are_kept() -> None:
    rotary = Rotary(rope(10000.0), 16, 300)
    rotary.materialize(dtype=torch.float32, device=CPU)
    x = torch.randn(300, 2, 16, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rotary(torch.arange(300)))
    assert torch.equal(turned[0], x[0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_frequencies_fall_from_one_radian_a_position_geometrically() -> None:
    found = frequencies(rope(10000.0), 8).inverse
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([1.0, 0.1, 0.01, 0.001], rel=1e-6)
    assert math.isclose(float(frequencies(rope(1e6), 128).inverse[-1]), 1e6 ** (-126 / 128), rel_tol=1e-5)


LONG = [1.0 + pair for pair in range(8)]
SHORT = [1.0 + 0.1 * pair for pair in range(8)]
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 3.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "yarn with its own betas": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 8.0, "beta_slow": 2.0,
    },
    "yarn cut between pairs": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "truncate": False,
    },
    "yarn with a scale": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "attention_factor": 0.7,
    },
    "yarn with two magnitudes": {
        "rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 512, "mscale": 1.0, "mscale_all_dim": 0.8,
    },
    "yarn without a factor": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 512},
}  # fmt: skip


@pytest.mark.parametrize("name", list(KINDS))
def test_every_fixed_kind_turns_as_in_transformers(name: str, tmp_path: Path) -> None:
    fields = {"rope_type": name, "rope_theta": 10000.0} | KINDS[name]
    config = Qwen3Config(head_dim=16, max_position_embeddings=2048, rope_parameters=fields)
    config.save_pretrained(tmp_path)
    ours = ModelConfig.from_pretrained(tmp_path)
    reference: Any = Qwen3RotaryEmbedding(config)
    rotary = Rotary(ours.rope, 16, 4096)
    rotary.materialize(dtype=torch.float32, device=CPU)
    cos, sin = reference(torch.zeros(1), POSITIONS[None])
    found = rotary(POSITIONS)
    torch.testing.assert_close(found.cos[:, 0], cos[0, :, :8], atol=2e-5, rtol=0)
    torch.testing.assert_close(found.sin[:, 0], sin[0, :, :8], atol=2e-5, rtol=0)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_rotation_of_llama_31_and_32_is_that_of_transformers_beyond_its_first_context(
    factor: float, tmp_path: Path
) -> None:
    """As published: heads of 128 (3.1) and 64 (3.2 1B) channels, a first context of 8,192."""
    head_dim = 128 if factor == 8.0 else 64
    fields = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(
        hidden_size=32 * head_dim, head_dim=head_dim, max_position_embeddings=131072, rope_parameters=fields
    )
    config.save_pretrained(tmp_path)
    reference: Any = LlamaRotaryEmbedding(config)
    positions = torch.tensor([0, 1, 8191, 8192, 8193, 20000, 131071])
    rotary = Rotary(ModelConfig.from_pretrained(tmp_path).rope, head_dim, 131072)
    rotary.materialize(dtype=torch.float32, device=CPU)
    cos, sin = reference(torch.zeros(1), positions[None])
    found = rotary(positions)
    rounding = 131071 * 2**-23  # of an angle of so many radians in float32
    torch.testing.assert_close(found.cos[:, 0], cos[0, :, : head_dim // 2], atol=rounding, rtol=0)
    torch.testing.assert_close(found.sin[:, 0], sin[0, :, : head_dim // 2], atol=rounding, rtol=0)
    torch.testing.assert_close(found.cos[:5, 0], cos[0, :5, : head_dim // 2], atol=8193 * 2**-23, rtol=0)


@pytest.mark.parametrize("length", [7, 64, 65, 66, 200])
def test_a_dynamic_base_grows_with_the_sequence(length: int, tmp_path: Path) -> None:
    fields = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.5}
    config = Qwen3Config(head_dim=16, max_position_embeddings=64, rope_parameters=fields)
    config.save_pretrained(tmp_path)
    ours = ModelConfig.from_pretrained(tmp_path).rope
    positions = torch.arange(length)
    reference: Any = Qwen3RotaryEmbedding(config)
    cos, _ = reference(torch.zeros(1), positions[None])
    rotary = Rotary(ours, 16, 4096)
    rotary.materialize(dtype=torch.float32, device=CPU)
    found = rotary(positions, torch.full((length,), ours.regimes.of(length, length)))
    torch.testing.assert_close(found.cos[:, 0], cos[0, :, :8], atol=2e-5, rtol=0)


@pytest.mark.parametrize("scale", [{}, {"factor": 4.0}, {"attention_factor": 1.5}])
@pytest.mark.parametrize("length", [31, 32, 33, 90])
def test_longrope_switches_its_table_beyond_the_original_context(
    length: int, scale: dict[str, float], tmp_path: Path
) -> None:
    fields = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": SHORT, "long_factor": LONG} | scale
    config = Phi3Config(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=256, original_max_position_embeddings=32,
        rope_parameters=fields,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    ours = ModelConfig.from_pretrained(tmp_path).rope
    positions = torch.arange(length)
    reference: Any = Phi3RotaryEmbedding(config)
    cos, sin = reference(torch.zeros(1), positions[None])
    rotary = Rotary(ours, 16, 256)
    rotary.materialize(dtype=torch.float32, device=CPU)
    found = rotary(positions, torch.full((length,), ours.regimes.of(length, length)))
    torch.testing.assert_close(found.cos[:, 0], cos[0, :, :8], atol=2e-5, rtol=0)
    torch.testing.assert_close(found.sin[:, 0], sin[0, :, :8], atol=2e-5, rtol=0)


def test_tokens_of_two_regimes_share_a_step() -> None:
    ours = RopeConfig(
        kind="longrope", theta=10000.0, max_positions=64,
        parameters={"short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 8},
    )  # fmt: skip
    rotary = Rotary(ours, 16, 64)
    rotary.materialize(dtype=torch.float32, device=CPU)
    mixed = rotary(torch.tensor([5, 5]), torch.tensor([0, 1])).cos[:, 0]
    assert not torch.allclose(mixed[0], mixed[1])
    assert torch.equal(mixed[0], rotary(torch.tensor([5])).cos[0, 0])


def test_part_of_a_head_is_turned_and_the_rest_kept() -> None:
    rotary = Rotary(RopeConfig(theta=10000.0, max_positions=64, partial_rotary_factor=0.75), 16, 64)
    rotary.materialize(dtype=torch.float32, device=CPU)
    x = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rotary(torch.arange(5)))
    whole = Rotary(RopeConfig(theta=10000.0, max_positions=64), 12, 64)
    whole.materialize(dtype=torch.float32, device=CPU)
    assert torch.equal(turned[..., :12], rotate(x[..., :12], whole(torch.arange(5))))
    assert torch.equal(turned[..., 12:], x[..., 12:])


def test_interleaved_pairs_are_halves_with_their_channels_permuted() -> None:
    plain, interleaved = (Rotary(rope(10000.0), 16, 64, is_interleaved=flag) for flag in (False, True))
    for rotary in (plain, interleaved):
        rotary.materialize(dtype=torch.float32, device=CPU)
    x = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(0))
    order = torch.cat([torch.arange(0, 16, 2), torch.arange(1, 16, 2)])
    positions = torch.arange(5)
    found = rotate(x, interleaved(positions))[..., order]
    torch.testing.assert_close(found, rotate(x[..., order], plain(positions)))
