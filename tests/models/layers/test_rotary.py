"""Rotary embedding against transformers' own."""

import math
from typing import Any

import pytest
import torch
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding, apply_rotary_pos_emb

from models.config_types import RopeConfig
from models.errors import ConfigError
from models.layers.rotary import Rotary, inverse_frequencies, rotate

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
    frequencies = inverse_frequencies(rope(10000.0), 8)
    assert frequencies.dtype == torch.float32
    assert frequencies.tolist() == pytest.approx([1.0, 0.1, 0.01, 0.001], rel=1e-6)
    assert math.isclose(float(inverse_frequencies(rope(1e6), 128)[-1]), 1e6 ** (-126 / 128), rel_tol=1e-5)


def test_a_scaling_that_is_not_implemented_is_refused() -> None:
    with pytest.raises(ConfigError, match="rope_type 'yarn' is not supported yet"):
        inverse_frequencies(rope(10000.0, kind="yarn"), 8)
