"""Linear layers on one, two and four ranks: every rank reads its slice, and together they are the whole layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.errors import ConfigError
from models.layers.kernels.products import packed_product
from models.layers.linear import ColumnLinear, Linear, RowLinear, head_rows, replicated, split_rows
from models.parallel.tensor_parallel import SINGLE, TensorParallel
from tests.helpers.models.ranks import CPU, loaded, on_ranks, write_checkpoint

SIZES = [1, 2, 4]
NUM_HEADS, HEAD_DIM, HIDDEN = 8, 4, 12
WIDTH = NUM_HEADS * HEAD_DIM


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_column_slices_side_by_side_are_the_whole(tmp_path: Path, size: int, bias: bool) -> None:
    weight, offset, x = random(WIDTH, HIDDEN), random(WIDTH, seed=1), random(5, HIDDEN, seed=2)
    checkpoint = write_checkpoint(tmp_path, {"up.weight": weight} | ({"up.bias": offset} if bias else {}))

    def run(tp: TensorParallel) -> torch.Tensor:
        layer = ColumnLinear([split_rows("up", WIDTH, tp=tp)], HIDDEN, bias=bias)
        output: torch.Tensor = loaded(layer, checkpoint)(x)
        assert output.shape == (5, WIDTH // size)
        return output

    found = torch.cat(on_ranks(size, run), dim=1)
    torch.testing.assert_close(found, F.linear(x, weight, offset if bias else None))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_row_slices_are_summed_and_the_bias_is_added_once(tmp_path: Path, size: int, bias: bool) -> None:
    weight, offset, x = random(HIDDEN, WIDTH), random(HIDDEN, seed=1), random(5, WIDTH, seed=2)
    checkpoint = write_checkpoint(tmp_path, {"down.weight": weight} | ({"down.bias": offset} if bias else {}))

    def run(tp: TensorParallel) -> torch.Tensor:
        layer = loaded(RowLinear("down", WIDTH, HIDDEN, tp=tp, bias=bias), checkpoint)
        start, stop = tp.share(WIDTH, "channels")
        output: torch.Tensor = layer(x[:, start:stop].contiguous())
        return output

    for found in on_ranks(size, run):
        torch.testing.assert_close(found, F.linear(x, weight, offset if bias else None))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_kv_heads", [8, 4, 2, 1])
def test_every_rank_holds_the_key_and_value_heads_its_query_heads_use(
    tmp_path: Path, size: int, num_kv_heads: int
) -> None:
    sizes = {"q": NUM_HEADS, "k": num_kv_heads, "v": num_kv_heads}
    weights = {name: random(count * HEAD_DIM, HIDDEN, seed=count) for name, count in sizes.items()}
    weights["v"] = weights["v"] + 1
    biases = {name: random(count * HEAD_DIM, seed=10 + count) for name, count in sizes.items()}
    checkpoint = write_checkpoint(
        tmp_path,
        {f"{name}.weight": weight for name, weight in weights.items()}
        | {f"{name}.bias": bias for name, bias in biases.items()},
    )
    x = random(5, HIDDEN, seed=2)
    q, k, v = (F.linear(x, weights[name], biases[name]).unflatten(1, (-1, HEAD_DIM)) for name in "qkv")
    group = NUM_HEADS // num_kv_heads

    def run(tp: TensorParallel) -> torch.Tensor:
        queries, keys = range(*tp.share(NUM_HEADS, "heads")), tp.kv_heads(NUM_HEADS, num_kv_heads)
        parts = head_rows("q", queries, num_heads=NUM_HEADS, head_dim=HEAD_DIM)
        for name in "kv":
            parts += head_rows(name, keys, num_heads=num_kv_heads, head_dim=HEAD_DIM)
        output: torch.Tensor = loaded(ColumnLinear(parts, HIDDEN, bias=True), checkpoint)(x)
        heads: torch.Tensor = output.unflatten(1, (-1, HEAD_DIM))
        return heads

    for rank, heads in enumerate(on_ranks(size, run)):
        num_queries = NUM_HEADS // size
        mine = heads[:, :num_queries]
        own_k, own_v = heads[:, num_queries:].chunk(2, dim=1)
        torch.testing.assert_close(mine, q[:, rank * num_queries : (rank + 1) * num_queries])
        local_group = num_queries // own_k.shape[1]
        for head in range(num_queries):
            used = (rank * num_queries + head) // group
            torch.testing.assert_close(own_k[:, head // local_group], k[:, used])
            torch.testing.assert_close(own_v[:, head // local_group], v[:, used])


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "size", "expected"),
    [
        (8, 4, 1, [(0, 1, 2, 3)]),
        (8, 4, 2, [(0, 1), (2, 3)]),
        (8, 1, 4, [(0,)] * 4),
        (8, 2, 4, [(0,), (0,), (1,), (1,)]),
        (40, 10, 4, [(0, 0, 1, 1, 2), (2, 3, 3, 4, 4), (5, 5, 6, 6, 7), (7, 8, 8, 9, 9)]),
        (40, 10, 8, [(0, 0, 0, 0, 1), (1, 1, 1, 2, 2), (2, 2, 3, 3, 3), (3, 4, 4, 4, 4),
            (5, 5, 5, 5, 6), (6, 6, 6, 7, 7), (7, 7, 8, 8, 8), (8, 9, 9, 9, 9),
        ]),
    ],
)  # fmt: skip
def test_ranks_hold_the_key_value_heads_that_their_query_heads_use(
    num_heads: int, num_kv_heads: int, size: int, expected: list[tuple[int, ...]]
) -> None:
    ranks = [TensorParallel(rank=rank, size=size) for rank in range(size)]
    assert [rank.kv_heads(num_heads, num_kv_heads) for rank in ranks] == expected


def test_what_does_not_divide_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match="6 attention heads cannot be split over 4 shards"):
        TensorParallel(rank=0, size=4).share(6, "attention heads")


def test_a_replicated_layer_is_whole_on_every_rank(tmp_path: Path) -> None:
    weight, x = random(5, HIDDEN), random(3, HIDDEN, seed=1)
    checkpoint = write_checkpoint(tmp_path, {"score.weight": weight})
    layers = on_ranks(2, lambda tp: loaded(Linear([replicated("score", 5)], HIDDEN), checkpoint)(x))
    assert torch.equal(layers[0], layers[1])
    torch.testing.assert_close(layers[0], F.linear(x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_rows", [1, 2, 31, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_a_loaded_layer_agrees_with_a_plain_product(
    tmp_path: Path, dtype: torch.dtype, num_rows: int, bias: bool
) -> None:
    weight, offset, x = random(24, HIDDEN), random(24, seed=1), random(num_rows, HIDDEN, seed=2).to(dtype)
    checkpoint = write_checkpoint(tmp_path, {"l.weight": weight} | ({"l.bias": offset} if bias else {}))
    found = loaded(Linear([replicated("l", 24)], HIDDEN, bias=bias), checkpoint, dtype)(x)
    assert found.dtype == dtype
    expected = F.linear(x.double(), weight.to(dtype).double(), offset.to(dtype).double() if bias else None)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}[dtype]
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=1e-2)


def test_a_packed_product_needs_its_weight_no_more() -> None:
    weight, bias, x = random(24, HIDDEN), random(24, seed=1), random(7, HIDDEN, seed=2)
    expected = F.linear(x, weight, bias)
    product = packed_product(weight, bias)
    assert product is not None
    weight.fill_(torch.nan)
    torch.testing.assert_close(product(x), expected)


def test_a_packed_layer_holds_its_weight_once(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, {"l.weight": random(24, HIDDEN)})
    layer: Any = loaded(Linear([replicated("l", 24)], HIDDEN), checkpoint)
    assert layer.product is not None
    assert layer.weight is None


def test_dtypes_that_cannot_be_packed_are_not(tmp_path: Path) -> None:
    assert packed_product(random(4, 4).double(), None) is None
    assert packed_product(random(4, 4).half(), None) is None


def test_a_machine_without_the_operators_uses_the_plain_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    weight, x = random(24, HIDDEN), random(7, HIDDEN, seed=2)
    checkpoint = write_checkpoint(tmp_path, {"l.weight": weight})
    layer: Any = loaded(Linear([replicated("l", 24)], HIDDEN), checkpoint)
    assert layer.product is None
    assert torch.equal(layer(x), F.linear(x, weight))


def test_a_packed_product_that_is_wrong_for_one_weight_only_is_not_used_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_compiler: None
) -> None:
    """It is compared on the weight itself, too: what a kernel does depends on the shape."""
    multiply = torch.ops.mkldnn._linear_pointwise

    def wrong_for_24_outputs(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        y: torch.Tensor = multiply(x, weight, *rest)
        return y + 1 if y.shape[1] == 24 else y

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", wrong_for_24_outputs)
    weights = {"l": random(24, HIDDEN), "m": random(23, HIDDEN), "n": random(24, HIDDEN, seed=3)}
    x = random(7, HIDDEN, seed=2)
    for name, weight in weights.items():
        (tmp_path / name).mkdir()
        checkpoint = write_checkpoint(tmp_path / name, {f"{name}.weight": weight})
        layer: Any = loaded(Linear([replicated(name, weight.shape[0])], HIDDEN), checkpoint)
        assert (layer.product is None) == (weight.shape[0] == 24)
        torch.testing.assert_close(layer(x), F.linear(x, weight))
    assert caplog.text.count("oneDNN's packed product in float32 is off by") == 1


def test_one_rank_exchanges_nothing() -> None:
    x = random(3, 4)
    assert SINGLE.all_reduce(x) is x
    assert SINGLE.all_gather(x) is x
    assert SINGLE.broadcast(x) is x
    assert x.device == CPU
