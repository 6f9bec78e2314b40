"""8-bit weights and the products of LLM.int8(), row by row."""

import bitsandbytes
import pytest
import torch
import torch.nn.functional as F
from bitsandbytes import functional

from models.layers import int8
from models.layers.int8 import Int8Quantizer, Int8Weight


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(weight: torch.Tensor, threshold: float = 6.0) -> Int8Weight:
    return Int8Quantizer(threshold=threshold)(weight, "w")


def floats(weight: Int8Weight) -> torch.Tensor:
    return weight.codes * (weight.absmax / 127)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_and_scales_are_those_of_bitsandbytes(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "QUANTIZED_AT_ONCE", 100)  # in pieces
    weight = random(37, 48).to(dtype)
    codes, absmax, _ = functional.int8_vectorwise_quant(weight.half())
    found = quantized(weight)
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.absmax, absmax)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 6.0])
def test_a_row_alone_gives_what_bitsandbytes_gives(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "MULTIPLIED_AT_ONCE", 100)  # in pieces
    weight = quantized(random(37, 48), threshold)
    x = random(4, 48, seed=1)
    x[1, 5], x[2, 7], x[2, 9] = 8.0, -7.0, 50.0
    state = bitsandbytes.MatmulLtState()  # type: ignore[attr-defined]
    state.CB, state.SCB, state.has_fp16_weights, state.is_training = weight.codes, weight.absmax, False, False
    expected = torch.cat(
        [bitsandbytes.matmul(row, weight.codes, threshold=threshold, state=state) for row in x.split(1)]  # type: ignore[attr-defined]
    )
    torch.testing.assert_close(weight.product()(x), expected, atol=4e-5 * float(expected.abs().max()), rtol=4e-5)


def test_outliers_are_multiplied_as_they_are_in_their_own_row_only() -> None:
    weight = quantized(random(37, 48))
    calm = random(1, 48, seed=1).clamp(-5, 5)
    wild = calm.clone()
    wild[0, 3] = 1000.0
    found = weight.product()(torch.cat([calm, wild]))
    torch.testing.assert_close(found[:1], weight.product()(calm), atol=1e-6, rtol=1e-6)
    rest = wild.clone()
    rest[0, 3] = 0
    expected = weight.product()(rest) + 1000.0 * floats(weight)[:, 3]
    torch.testing.assert_close(found[1:], expected, atol=1e-3, rtol=1e-5)


def test_rows_of_zeros_and_of_outliers_alone_are_exact() -> None:
    weight = quantized(random(37, 48))
    x = torch.zeros(2, 48)
    x[1] = 7.5
    torch.testing.assert_close(weight.product()(x), F.linear(x, floats(weight)), atol=1e-4, rtol=1e-5)
    assert weight.product()(x[:0]).shape == (0, 37)


def test_a_row_of_weights_that_are_all_zero_stays_zero() -> None:
    weight = random(4, 48)
    weight[2] = 0
    assert torch.equal(quantized(weight).product()(random(3, 48))[:, 2], torch.zeros(3))


def test_stacked_rows_are_the_rows() -> None:
    first, second = quantized(random(4, 48)), quantized(random(3, 48, seed=1))
    stacked = first.above(second)
    assert stacked is not None
    assert torch.equal(floats(stacked), torch.cat([floats(first), floats(second)]))
    assert first.above(None) is None
    assert Int8Quantizer(threshold=6.0).num_bytes((4, 48), torch.float32) == first.codes.nbytes + first.absmax.nbytes
