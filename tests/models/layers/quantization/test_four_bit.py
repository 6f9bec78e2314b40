"""4-bit weights: codes and scales are those of the published formulas, cut and stacked without changing a number where that
can be."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from bitsandbytes import functional

from models.layers.kernels.plain import FourBitKind
from models.layers.quantization import four_bit
from models.layers.quantization.four_bit import FourBitQuantizer, FourBitWeight, QuantizedScales
from tests.helpers.models import formulas

KINDS: list[FourBitKind] = ["nf4", "fp4"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(kind: FourBitKind = "nf4", *, double: bool = False, block_size: int = 64) -> FourBitQuantizer:
    return FourBitQuantizer(kind=kind, block_size=block_size, double=double, compute_dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(5, 48), (64, 64), (300, 96), (1, 64), (3, 2)])
def test_a_weight_is_what_the_formula_makes_of_it(
    kind: FourBitKind, shape: tuple[int, int], double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(four_bit, "QUANTIZED_AT_ONCE", 4096)  # in pieces
    weight = random(*shape)
    found, expected = quantizer(kind, double=double)(weight, "w"), formulas.four_bit(weight, kind)
    if double:
        assert isinstance(found.scales, QuantizedScales)
        assert_nearly_nearest(found.scales, expected.scales)
    else:
        assert torch.equal(found.plain_scales(), expected.scales)
    floats = formulas.four_bit_floats(expected.packed, found.plain_scales(), kind, weight.shape, 64)
    torch.testing.assert_close(found.floats(), floats, atol=0, rtol=1e-6)


def assert_nearly_nearest(found: QuantizedScales, scales: torch.Tensor) -> None:
    """Each scale has the code that the formula gives it, or one that is as near but for 3e-5 of its block's unit, which
    bitsandbytes' own search is off by."""
    torch.testing.assert_close(found.table, formulas.dynamic_table(), atol=1e-7, rtol=1e-6)
    units = found.absmax.repeat_interleave(256)[: scales.numel()]
    offset = scales.mean()
    torch.testing.assert_close(found.floats(), found.table[found.codes.long()] * units + offset, atol=1e-6, rtol=1e-6)
    distance = (found.floats() - scales).abs()
    assert (distance <= (formulas.twice(scales) - scales).abs() + 3e-5 * units).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_size", [32, 64, 128, 1024, 2048, 4096])
@pytest.mark.parametrize("shape", [(70, 64), (33, 160), (5, 48), (129, 70), (3, 33), (1, 1), (67, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_are_made_floats_in_whole_blocks_whatever_the_shape(
    kind: FourBitKind, block_size: int, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    weight = random(*shape)
    found, held = quantizer(kind, block_size=block_size)(weight, "w"), formulas.four_bit(weight, kind, block_size)
    expected = formulas.four_bit_floats(held.packed, held.scales, kind, weight.shape, block_size)
    torch.testing.assert_close(found.floats(), expected, atol=0, rtol=1e-6)
    x = random(3, shape[1], seed=1)
    product = replace(found, compute_dtype=dtype).product()(x)
    exact = F.linear(x.to(dtype).double(), expected.to(dtype).double())
    slack = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype] * float(exact.abs().max())
    torch.testing.assert_close(product.double(), exact, atol=slack, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(70, 64), (16, 320), (3, 128)])
def test_bitsandbytes_gives_the_formulas_floats_where_its_path_is_defined(
    kind: FourBitKind, double: bool, shape: tuple[int, int]
) -> None:
    """Rows of whole blocks: on some processors it is wrong for others."""
    weight = random(*shape)
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=kind)
    found = quantizer(kind, double=double)(weight, "w")
    torch.testing.assert_close(found.floats(), functional.dequantize_4bit(codes, state), atol=0, rtol=1e-6)
    assert torch.equal(found.packed, codes.view(-1))


@pytest.mark.parametrize("shape", [(70, 48), (70, 64), (7, 2), (33, 160)])
@pytest.mark.parametrize("double", [False, True])
def test_a_product_is_that_of_the_floats(shape: tuple[int, int], double: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit, "MULTIPLIED_AT_ONCE", 1000)  # in pieces
    weight = quantizer(double=double)(random(*shape), "w")
    x = random(5, shape[1], seed=1)
    torch.testing.assert_close(weight.product()(x), F.linear(x, weight.floats()))
    assert weight.product()(x[:0]).shape == (0, shape[0])


def same(found: FourBitWeight, expected: torch.Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    torch.testing.assert_close(found.floats(), expected, atol=0, rtol=0)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((8, 128), (0, 8), (0, 128)),
        ((8, 128), (2, 5), (0, 128)),
        ((8, 128), (0, 8), (64, 128)),
        ((8, 128), (1, 7), (0, 64)),
        ((8, 48), (4, 8), (0, 48)),  # rows 0 to 4 are 3 blocks
        ((9, 48), (4, 9), (0, 48)),  # the last block is cut short in the whole, too
        ((8, 32), (2, 6), (0, 32)),
    ],
)
def test_a_cut_between_blocks_changes_no_number(
    shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], double: bool
) -> None:
    weight = quantizer(double=double)(random(*shape), "w")
    part = weight.part(rows, columns)
    same(part, weight.floats()[slice(*rows), slice(*columns)])
    assert part is weight or part.packed.untyped_storage().nbytes() == part.packed.nbytes  # holds no more than its own


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((8, 48), (2, 6), (0, 48)), ((8, 128), (0, 8), (32, 96)), ((8, 96), (0, 8), (0, 48))],
)
def test_a_cut_through_blocks_is_quantized_again_with_the_same_settings(
    shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], double: bool
) -> None:
    quantize = quantizer(double=double)
    weight = quantize(random(*shape), "w")
    cut = weight.floats()[slice(*rows), slice(*columns)].contiguous()
    part = weight.part(rows, columns)
    assert isinstance(part.scales, QuantizedScales) == double
    same(part, quantize(cut, "w").floats())


def test_rows_are_stacked_only_where_no_number_changes() -> None:
    first, second = quantizer()(random(4, 48), "a"), quantizer()(random(3, 48, seed=1), "b")
    stacked = first.above(second)
    assert stacked is not None
    same(stacked, torch.cat([first.floats(), second.floats()]))
    assert second.above(first) is None  # its last block is not full
    assert first.above(quantizer("fp4")(random(4, 48), "c")) is None
    assert first.above(quantizer(block_size=32)(random(4, 48), "c")) is None
    assert first.above(quantizer(double=True)(random(4, 48), "c")) is None
    assert first.above(None) is None


@pytest.mark.parametrize("double", [False, True])
def test_the_bytes_are_known_beforehand(double: bool) -> None:
    quantize = quantizer(double=double)
    weight = quantize(random(300, 96), "w")
    scales = weight.scales
    tensors = (
        [scales] if isinstance(scales, torch.Tensor) else [scales.codes, scales.absmax, scales.table, scales.offset]
    )
    assert quantize.num_bytes((300, 96), torch.float32) == sum(tensor.nbytes for tensor in [weight.packed, *tensors])
