"""Quantized linear layers on one, two and four ranks, from floats and from tensors that are saved quantized."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from bitsandbytes import functional
from torch import nn

from models.config.quantization import QuantizationConfig
from models.layers.embedding import VocabHead
from models.layers.linear import ColumnLinear, Linear, Part, RowLinear, split_rows
from models.layers.quantization.held_weight import HeldWeight, merged
from models.layers.quantization.quantized_layers import Quantization, hold_quantized
from models.parallel.tensor_parallel import SINGLE, TensorParallel
from models.weights.weights import Checkpoint, load_weights
from tests.helpers.models import formulas
from tests.helpers.models.ranks import CPU, on_ranks, write_checkpoint

SIZES = [1, 2, 4]
METHODS: list[Literal["int8", "nf4", "fp4"]] = ["int8", "nf4", "fp4"]
OUT, IN = 16, 256  # a quarter of the columns is a block of 64
NO_OUTLIERS: dict[str, Any] = {"int8": {"int8_threshold": 0.0}, "nf4": {}, "fp4": {}}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(name: str, weight: torch.Tensor, method: str, *, double: bool = False) -> dict[str, torch.Tensor]:
    """The tensors that bitsandbytes writes for one weight."""
    if method == "int8":
        codes, absmax, _ = functional.int8_vectorwise_quant(weight.half())
        return {f"{name}.weight": codes, f"{name}.SCB": absmax, f"{name}.weight_format": torch.tensor(0).byte()}
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=method)
    return {f"{name}.weight": codes} | {f"{name}.weight.{key}": t for key, t in state.as_dict(packed=True).items()}


def restored(weight: torch.Tensor, method: str, *, double: bool = False) -> torch.Tensor:
    """The weight that these tensors stand for, by the published formulas."""
    return formulas.int8(weight).floats if method == "int8" else formulas.four_bit_weight(weight, method, double=double)


def loaded(layer: nn.Module, checkpoint: Checkpoint, config: QuantizationConfig, *, is_saved: bool) -> Any:
    quantization = Quantization.choose(config, checkpoint, is_saved=is_saved, dtype=torch.float32, device=CPU)
    hold_quantized(layer, quantization)
    load_weights(layer, checkpoint, dtype=torch.float32, device=CPU)
    return layer


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize(("method", "double"), [*((method, False) for method in METHODS), ("nf4", True), ("fp4", True)])
def test_column_shards_side_by_side_are_the_whole(
    tmp_path: Path, method: Literal["int8", "nf4", "fp4"], double: bool, is_saved: bool, size: int
) -> None:
    config = QuantizationConfig(method=method, double_quantization=double or None, **NO_OUTLIERS[method])
    weight, bias, x = random(OUT, IN), random(OUT, seed=1), random(5, IN, seed=2)
    tensors = saved("up", weight, method, double=double) if is_saved else {"up.weight": weight}
    checkpoint = write_checkpoint(tmp_path, tensors | {"up.bias": bias})

    def run(tp: TensorParallel) -> torch.Tensor:
        layer = ColumnLinear([split_rows("up", OUT, tp=tp)], IN, bias=True)
        output: torch.Tensor = loaded(layer, checkpoint, config, is_saved=is_saved)(x)
        return output

    found = torch.cat(on_ranks(size, run), dim=1)
    # Scales that are quantized again shard by shard are rounded otherwise.
    slack = 0.02 if double and not is_saved and size > 1 else 1e-5
    if method == "int8":
        whole = ColumnLinear([Part(name="up", out_features=OUT, rows=(0, OUT))], IN, bias=True)
        expected = loaded(whole, checkpoint, config, is_saved=is_saved)(x)
    else:
        expected = F.linear(x, restored(weight, method, double=double), bias)
    torch.testing.assert_close(found, expected, atol=slack * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_row_shards_are_summed(
    tmp_path: Path, method: Literal["int8", "nf4", "fp4"], is_saved: bool, size: int
) -> None:
    config = QuantizationConfig(method=method, **NO_OUTLIERS[method])
    weight, bias, x = random(OUT, IN), random(OUT, seed=1), random(5, IN, seed=2)
    tensors = saved("down", weight, method) if is_saved else {"down.weight": weight}
    checkpoint = write_checkpoint(tmp_path, tensors | {"down.bias": bias})

    def run(tp: TensorParallel) -> torch.Tensor:
        layer = RowLinear("down", IN, OUT, tp=tp, bias=True)
        start, stop = tp.share(IN, "channels")
        return loaded(layer, checkpoint, config, is_saved=is_saved)(x[:, start:stop].contiguous())  # type: ignore[no-any-return]

    expected = F.linear(x, restored(weight, method), bias)
    # Blocks of 64 lie inside the shards, so 4-bit weights are the same; int8 rounds each shard of the input by itself.
    slack = 0.02 if method == "int8" else 1e-5
    for found in on_ranks(size, run):
        torch.testing.assert_close(found, expected, atol=slack * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_shard_that_cuts_blocks_is_near_the_whole(
    tmp_path: Path, method: Literal["int8", "nf4", "fp4"]
) -> None:
    width = 96  # halves of 48 columns
    weight, x = random(OUT, width), random(5, width, seed=2)
    checkpoint = write_checkpoint(tmp_path, saved("down", weight, method))
    config = QuantizationConfig(method=method)

    def run(tp: TensorParallel) -> torch.Tensor:
        start, stop = tp.share(width, "channels")
        layer = RowLinear("down", width, OUT, tp=tp)
        return loaded(layer, checkpoint, config, is_saved=True)(x[:, start:stop].contiguous())  # type: ignore[no-any-return]

    expected = F.linear(x, restored(weight, method))
    for found in on_ranks(2, run):
        assert (found - expected).norm() < 0.12 * expected.norm()


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_head_of_an_odd_vocabulary_is_padded(
    tmp_path: Path, method: Literal["int8", "nf4", "fp4"], size: int
) -> None:
    weight, x = random(7, IN), random(3, IN, seed=1)
    config = QuantizationConfig(method=method, skipped_modules=(), **NO_OUTLIERS[method])
    checkpoint = write_checkpoint(tmp_path, {"lm_head.weight": weight})

    def run(tp: TensorParallel) -> torch.Tensor:
        return loaded(VocabHead("lm_head", 7, IN, tp=tp), checkpoint, config, is_saved=False)(x)  # type: ignore[no-any-return]

    [expected] = on_ranks(1, run)
    for found in on_ranks(size, run):
        assert found.shape == (3, 7)
        torch.testing.assert_close(found, expected)


def parts_of(layer: Linear) -> HeldWeight:
    assert isinstance(layer.held, HeldWeight)
    return layer.held


@pytest.mark.parametrize(("width", "num_products"), [(64, 1), (48, 2)])
@pytest.mark.parametrize("is_saved", [False, True])
def test_published_tensors_are_quantized_one_by_one_and_multiplied_together_where_that_is_exact(
    tmp_path: Path, width: int, num_products: int, is_saved: bool
) -> None:
    weights = {name: random(5, width, seed=seed) for seed, name in enumerate("ab")}
    tensors = {f"{name}.weight": weight for name, weight in weights.items()}
    if is_saved:
        tensors = saved("a", weights["a"], "nf4") | saved("b", weights["b"], "nf4")
    layer = ColumnLinear([Part(name=name, out_features=5, rows=(0, 5)) for name in "ab"], width)
    loaded(layer, write_checkpoint(tmp_path, tensors), QuantizationConfig(method="nf4"), is_saved=is_saved)
    assert len(parts_of(layer)._products) == num_products
    x = random(3, width, seed=9)
    expected = F.linear(x, torch.cat([restored(weights[name], "nf4") for name in "ab"]))
    torch.testing.assert_close(layer(x), expected)


def test_sections_of_one_published_tensor_are_quantized_as_that_tensor(tmp_path: Path) -> None:
    weight, x = random(9, 48), random(3, 48, seed=1)  # blocks run through the sections
    rows = [(0, 5), (5, 7), (7, 9)]
    layer = ColumnLinear([Part(name="qkv", out_features=9, rows=each) for each in rows], 48)
    checkpoint = write_checkpoint(tmp_path, {"qkv.weight": weight})
    loaded(layer, checkpoint, QuantizationConfig(method="nf4"), is_saved=False)
    assert len(parts_of(layer).parts) == 1
    torch.testing.assert_close(layer(x), F.linear(x, restored(weight, "nf4")))


def test_only_neighbours_are_merged() -> None:
    def part(name: str, start: int, stop: int) -> Part:
        return Part(name=name, out_features=9, rows=(start, stop))

    parts = [part("a", 0, 2), part("a", 2, 4), part("a", 5, 6), part("b", 6, 7), part("a", 7, 9)]
    assert merged(parts) == [part("a", 0, 4), *parts[2:]]


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_fused_layer_may_keep_one_of_its_tensors_as_it_is(
    tmp_path: Path, method: Literal["int8", "nf4", "fp4"], is_saved: bool
) -> None:
    weights = {name: random(8, 64, seed=seed) for seed, name in enumerate("abc")}
    tensors = {f"{name}.weight": weight for name, weight in weights.items()}
    if is_saved:
        tensors = saved("a", weights["a"], method) | {"b.weight": weights["b"]} | saved("c", weights["c"], method)
    skipped = None if is_saved else ("b",)
    config = QuantizationConfig(method=method, skipped_modules=skipped, **NO_OUTLIERS[method])
    layer = ColumnLinear([Part(name=name, out_features=8, rows=(0, 8)) for name in "abc"], 64)
    loaded(layer, write_checkpoint(tmp_path, tensors), config, is_saved=is_saved)
    x = random(3, 64, seed=9)
    first, kept, last = layer(x).chunk(3, dim=1)
    torch.testing.assert_close(kept, F.linear(x, weights["b"]))
    for found, name in ((first, "a"), (last, "c")):
        expected = F.linear(x, restored(weights[name], method))
        slack = 0.02 if method == "int8" else 1e-5
        torch.testing.assert_close(found, expected, atol=slack * float(expected.abs().max()), rtol=1e-5)


def test_bytes_of_a_saved_shard_are_its_share(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, saved("up", random(OUT, IN), "nf4"))
    layer = ColumnLinear([split_rows("up", OUT, tp=TensorParallel(rank=1, size=4))], IN)
    config = QuantizationConfig(method="nf4")
    hold_quantized(layer, Quantization.choose(config, checkpoint, is_saved=True, dtype=torch.float32, device=CPU))
    [part] = parts_of(layer).parts
    assert part.num_bytes(torch.float32) == (OUT * IN // 2 + OUT * IN // 64 * 4) / 4  # type: ignore[operator]


def test_the_state_says_the_block_size(tmp_path: Path) -> None:
    weight = random(8, 256)
    codes, state = functional.quantize_4bit(weight, blocksize=128, quant_type="fp4")
    tensors = {"up.weight": codes} | {f"up.weight.{key}": t for key, t in state.as_dict(packed=True).items()}
    assert json.loads(bytes(tensors["up.weight.quant_state.bitsandbytes__fp4"].tolist()))["blocksize"] == 128
    layer = ColumnLinear([split_rows("up", 8, tp=SINGLE)], 256)
    loaded(layer, write_checkpoint(tmp_path, tensors), QuantizationConfig(method="fp4"), is_saved=True)
    x = random(3, 256, seed=1)
    torch.testing.assert_close(layer(x), F.linear(x, formulas.four_bit_weight(weight, "fp4", block_size=128)))
