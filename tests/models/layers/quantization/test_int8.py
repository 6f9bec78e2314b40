"""8-bit weights and the products of LLM.int8(), row by row."""

import bitsandbytes
import pytest
import torch
import torch.nn.functional as F
from bitsandbytes import functional

from models.layers.kernels import quantized_codes
from models.layers.quantization import int8
from models.layers.quantization.int8 import Int8Quantizer, Int8Weight
from tests.helpers.models import formulas


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(weight: torch.Tensor, threshold: float = 6.0) -> Int8Weight:
    return Int8Quantizer(threshold=threshold)(weight, "w")


def floats(weight: Int8Weight) -> torch.Tensor:
    return weight.codes * (weight.absmax / 127)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_and_scales_are_those_of_the_formula(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "QUANTIZED_AT_ONCE", 100)  # in pieces
    weight = random(37, 49).to(dtype)
    found, expected = quantized(weight), formulas.int8(weight)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.absmax, expected.absmax)
    codes, absmax, _ = functional.int8_vectorwise_quant(weight.half())
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.absmax, absmax)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("num_rows", [1, 3, 33])
def test_a_product_is_that_of_the_formula(threshold: float, num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "MULTIPLIED_AT_ONCE", 100)  # in pieces
    weight = random(37, 49)
    x = random(num_rows, 49, seed=1)
    x[0, 5], x[-1, 7], x[-1, 9] = 8.0, -7.0, 50.0
    expected = formulas.int8_product(x, formulas.int8(weight), threshold)
    found = quantized(weight, threshold).product()(x)
    torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 6.0])
def test_where_the_check_lets_bitsandbytes_through_it_gives_the_formulas_product_for_a_row_alone(
    threshold: float,
) -> None:
    """But for its constant in the place of 1 / 127**2, which is 1.8e-5 too much on a CPU. Where oneDNN is held to AVX2 its
    sums of codes overflow."""
    weight, x = formulas.int8(random(37, 48)), random(4, 48, seed=1)
    x[1, 5], x[2, 7], x[2, 9] = 8.0, -7.0, 50.0
    state = bitsandbytes.MatmulLtState()  # type: ignore[attr-defined]
    state.CB, state.SCB, state.has_fp16_weights, state.is_training = weight.codes, weight.absmax, False, False
    rows = [bitsandbytes.matmul(row, weight.codes, threshold=threshold, state=state) for row in x.split(1)]  # type: ignore[attr-defined]
    expected = formulas.int8_product(x, weight, threshold)
    error = (torch.cat(rows) - expected).abs().max() / expected.abs().max()
    assert (error < 4e-5) == (quantized_codes.int8_product("cpu") is not None)


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
