"""4-bit weights: codes and scales are bitsandbytes', cut and stacked without changing a number where that can be."""

import pytest
import torch
import torch.nn.functional as F
from bitsandbytes import functional

from models.layers import four_bit
from models.layers.four_bit import FourBitQuantizer, FourBitWeight, QuantizedScales

KINDS: list[four_bit.FourBitKind] = ["nf4", "fp4"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(kind: four_bit.FourBitKind = "nf4", *, double: bool = False, block_size: int = 64) -> FourBitQuantizer:
    return FourBitQuantizer(kind=kind, block_size=block_size, double=double, compute_dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(5, 48), (64, 64), (300, 96), (1, 64), (3, 2)])
def test_codes_and_scales_are_those_of_bitsandbytes(
    kind: four_bit.FourBitKind, shape: tuple[int, int], double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(four_bit, "QUANTIZED_AT_ONCE", 4096)  # in pieces
    weight = random(*shape)
    found = quantizer(kind, double=double)(weight, "w")
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=kind)
    assert torch.equal(found.packed, codes.view(-1))
    torch.testing.assert_close(found.floats(), functional.dequantize_4bit(codes, state), atol=0, rtol=0)
    if double:
        assert isinstance(found.scales, QuantizedScales)
        assert torch.equal(found.scales.codes, state.absmax)


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
