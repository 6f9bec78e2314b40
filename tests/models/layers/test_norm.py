"""Root-mean-square norms against transformers' own, in float32 and in half precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.helium.modeling_helium import HeliumRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from models.layers.norm import HeadNorm, RMSNorm
from tests.helpers.models.ranks import loaded, write_checkpoint

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}  # one rounding in half precision


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(weight: torch.Tensor, eps: float, dtype: torch.dtype) -> nn.Module:
    norm: Any = Qwen3RMSNorm(weight.shape[0], eps)
    norm.weight.data = weight
    module: nn.Module = norm.to(dtype).requires_grad_(False)
    return module


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("size", [1, 8, 80, 513])
def test_a_norm_is_that_of_transformers(tmp_path: Path, dtype: torch.dtype, eps: float, size: int) -> None:
    weight, x = 1 + random(size), (3 * random(7, size, seed=1)).to(dtype)
    x[3] = 0.0
    norm = loaded(RMSNorm("norm", size, eps), write_checkpoint(tmp_path, {"norm.weight": weight}), dtype)
    before = x.clone()
    found = norm(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, reference(weight, eps, dtype)(x), atol=1e-6, rtol=TOLERANCE[dtype])
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_query_and_key_heads_have_a_weight_each(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {"q_norm.weight": 1 + random(16), "k_norm.weight": 1 + random(16, seed=1)}
    norm = HeadNorm("q_norm", "k_norm", num_query_heads=4, num_key_heads=2, head_dim=16, eps=1e-6)
    loaded(norm, write_checkpoint(tmp_path, weights), dtype)
    fused = random(5, 8, 16, seed=2).to(dtype)
    qk = fused[:, :6]  # a view, as the fused projection gives it
    found = norm(qk)
    queries, keys = (reference(weight, 1e-6, dtype) for weight in weights.values())
    torch.testing.assert_close(found[:, :4], queries(qk[:, :4]), atol=1e-6, rtol=TOLERANCE[dtype])
    torch.testing.assert_close(found[:, 4:], keys(qk[:, 4:]), atol=1e-6, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_helium_rounds_after_the_weight(tmp_path: Path, dtype: torch.dtype) -> None:
    weight, x = 1 + random(80), (3 * random(200, 80, seed=1)).to(dtype)
    checkpoint = write_checkpoint(tmp_path, {"norm.weight": weight})
    late, early = (loaded(RMSNorm("norm", 80, 1e-8, rounds_last=late), checkpoint, dtype)(x) for late in (True, False))
    build: Any = HeliumRMSNorm
    oracle = build(80, 1e-8)
    oracle.weight.data = weight.to(dtype)
    with torch.no_grad():
        expected = oracle(x)
    assert (late == expected).float().mean() > 0.999
    assert 0.05 < (early != expected).float().mean() < 0.6  # what the other order would have given
