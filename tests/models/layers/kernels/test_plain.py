"""Plain torch against the published formulas, and attention against its definition in float64."""

import pytest
import torch
from bitsandbytes.functional import create_dynamic_map, get_4bit_type

from models.config.quantization import BLOCK_SIZES
from models.layers.kernels import plain
from tests.helpers.models import formulas
from tests.helpers.models.paged import naive

KINDS: list[plain.FourBitKind] = ["nf4", "fp4"]
CPU = torch.device("cpu")
SHAPES = [(1, 1), (3, 3), (5, 48), (70, 64), (33, 160), (129, 70)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_are_those_of_the_formulas_and_of_the_library(kind: plain.FourBitKind) -> None:
    table = plain.four_bit_table(kind, CPU)
    torch.testing.assert_close(table, torch.tensor(formulas.TABLES[kind]), atol=0, rtol=1e-7)
    assert torch.equal(table, get_4bit_type(kind, device="cpu"))
    torch.testing.assert_close(create_dynamic_map(), formulas.dynamic_table(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_of_4_bits_and_their_floats(kind: plain.FourBitKind, block_size: int, shape: tuple[int, int]) -> None:
    weight = random(*shape)
    packed, scales = plain.four_bit_codes(weight, block_size, kind=kind)
    expected = formulas.four_bit(weight, kind, block_size)
    assert packed.numel() == -(-weight.numel() // 2)
    assert torch.equal(scales, expected.scales)
    whole = torch.zeros(scales.numel() * block_size // 2, dtype=torch.uint8)
    whole[: packed.numel()] = packed
    found = plain.four_bit_floats(whole, scales, block_size, kind=kind, dtype=torch.float32)[: weight.numel()]
    floats = formulas.four_bit_floats(expected.packed, expected.scales, kind, weight.shape, block_size)
    torch.testing.assert_close(found.view(shape), floats, atol=0, rtol=1e-6)


@pytest.mark.parametrize("num_scales", [1, 3, 255, 256, 257, 700])
def test_scales_quantized_in_turn(num_scales: int) -> None:
    scales = random(num_scales).abs()
    table, offset = formulas.dynamic_table(), scales.mean()
    codes, absmax = plain.table_codes(scales - offset, table, 256)
    found = plain.table_floats(codes, absmax, table, 256) + offset
    torch.testing.assert_close(found, formulas.twice(scales), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_of_8_bits_and_their_product(shape: tuple[int, int]) -> None:
    weight, x = random(*shape), random(3, shape[1], seed=1)
    codes, absmax = plain.int8_codes(weight.half())
    expected = formulas.int8(weight)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(absmax, expected.absmax)
    inputs, units = plain.int8_codes(x.half())
    found = plain.int8_product(inputs, codes, units, absmax, torch.float32)
    torch.testing.assert_close(found, formulas.int8_product(x, expected, 0.0), atol=1e-5, rtol=1e-5)


def test_a_row_of_zeros_has_codes_of_zeros() -> None:
    codes, absmax = plain.int8_codes(torch.zeros(1, 5).half())
    assert not codes.any()
    assert not absmax.any()


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_attention_is_one_softmax_over_the_keys_that_are_seen(num_kv_heads: int, window: int | None) -> None:
    counts, lengths = [1, 3, 9], [7, 3, 30]
    q = random(sum(counts), 4, 8)
    k, v = random(sum(lengths), num_kv_heads, 8, seed=1), random(sum(lengths), num_kv_heads, 8, seed=2)
    cu_queries, cu_keys = (torch.tensor([0, *sizes]).cumsum(0).int() for sizes in (counts, lengths))
    size = (-1, 0) if window is None else (window - 1, 0)
    found = plain.varlen_attention(q, k, v, cu_queries, cu_keys, 9, 30, 8**-0.5, size)
    sequences = zip(q.split(counts), k.split(lengths), v.split(lengths), strict=True)
    expected = torch.cat([naive(own_q, own_k, own_v, window) for own_q, own_k, own_v in sequences])
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_attention_without_a_mask_is_causal() -> None:
    q, k, v = random(1, 4, 5, 8), random(1, 2, 5, 8, seed=1), random(1, 2, 5, 8, seed=2)
    found = plain.attention(q, k, v, None, 8**-0.5)[0].transpose(0, 1)
    own_q, own_k, own_v = (x[0].transpose(0, 1) for x in (q, k, v))
    expected = naive(own_q, own_k, own_v, None)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
