"""The compiled kernels: right by sums in double precision, and of a row the same bits whatever is computed with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.kernels.compiled import native_kernels
from models.layers.native.build import built_library
from models.layers.native.library import NativeLibrary, PackedWeight, Pages, Steps
from tests.helpers.compilers import needs_compiler

pytestmark = needs_compiler
DTYPES = (torch.float32, torch.bfloat16)
ROUNDING = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8}
"""Of one number, as a share of it: in float32 a sum may be off by some more of the sum of its terms' sizes."""


def library_of(dtype: torch.dtype) -> NativeLibrary:
    found = native_kernels(dtype)
    if found is None:
        pytest.skip(f"this processor has no instructions for {dtype}")
    return found


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_columns", "length"), [(1, 1), (37, 19), (64, 32), (100, 600), (33, 1025)])
def test_a_product_is_the_sum_of_its_terms(dtype: torch.dtype, num_columns: int, length: int) -> None:
    weight, bias = random(num_columns, length, dtype=dtype), random(num_columns, dtype=dtype, seed=1)
    x = random(29, length, dtype=dtype, seed=2)
    product = PackedWeight(library_of(dtype), weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    size = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    assert ((product.in_float32(x).double() - exact).abs() <= 2.0**-20 * size).all()
    assert product(x).dtype == dtype
    assert torch.equal(product(x), product.in_float32(x).to(dtype))


@given(data=st.data())
def test_a_row_of_a_product_is_the_same_with_any_others(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    length, num_columns, num_rows = (data.draw(st.integers(1, most)) for most in (700, 80, 60))
    product = PackedWeight(library_of(dtype), random(num_columns, length, dtype=dtype), None)
    x = random(num_rows, length, dtype=dtype, seed=1)
    chosen = data.draw(st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=30))
    assert torch.equal(product.in_float32(x[chosen]), product.in_float32(x)[chosen])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_the_same_in_any_number_of_threads(dtype: torch.dtype, two_threads: None) -> None:
    product, x = (
        PackedWeight(library_of(dtype), random(200, 300, dtype=dtype), None),
        random(70, 300, dtype=dtype, seed=1),
    )
    found = product.in_float32(x)
    torch.set_num_threads(1)
    assert torch.equal(product.in_float32(x), found)


@pytest.mark.skipif(
    "AVX512" not in torch.backends.cpu.get_cpu_capability(), reason="this processor has one kind of vectors"
)
def test_float32_products_and_scores_are_the_same_by_narrow_vectors(tmp_path: Path) -> None:
    """Code for processors without AVX-512: tiles of another size, sums in the same order."""
    wide, narrow = library_of(torch.float32), NativeLibrary(str(built_library(tmp_path, processor="x86-64-v3")))
    assert (wide.tile_columns, narrow.tile_columns) == (32, 16)
    weight, x = random(75, 700, dtype=torch.float32), random(31, 700, dtype=torch.float32, seed=1)
    assert torch.equal(PackedWeight(narrow, weight, None)(x), PackedWeight(wide, weight, None)(x))
    for dtype in DTYPES:
        q, k, v = (random(90, heads, 24, dtype=dtype, seed=heads) for heads in (6, 2, 2))
        found, expected = (one.attention(q, k, v, None, steps([90]), 0.3) for one in (narrow, wide))
        assert (found.float() - expected.float()).abs().max() < 8 * ROUNDING[dtype]


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    """Sums half way between two numbers, and beside it: x * 1 + x * 2^-8 and their like, of all x that are normal."""
    bits = torch.arange(2**16).to(torch.uint16)
    x = bits.view(torch.bfloat16)[:, None]
    x = x[(x.float().abs() > 1e-30) & (x.float().abs() < 1e30)][:, None].expand(-1, 2).contiguous()
    factors = torch.tensor([[1.0, 2.0**-8], [1.0, 2.0**-9], [1.0, 3 * 2.0**-9], [1.0, -(2.0**-9)]]).to(torch.bfloat16)
    product = PackedWeight(library_of(torch.bfloat16), factors, None)
    assert torch.equal(product(x), (x.float() @ factors.float().T).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 16, 130])
def test_rows_are_normalised_as_torch_does(dtype: torch.dtype, size: int) -> None:
    library, x = library_of(dtype), random(9, 3, size, dtype=dtype)
    weights = random(3, size, dtype=dtype, seed=1)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    whole = torch.cat([x, x], dim=1)[:, :3]  # heads of tokens that lie further apart
    rounded = exact.to(dtype).double() * weights.double()
    assert torch.allclose(library.norm(whole, weights, 1e-5).double(), rounded, rtol=4 * ROUNDING[dtype], atol=0)
    flat = library.norm(x[:, 0], weights[0], 1e-5, rounds_last=True)
    assert torch.allclose(flat.double(), exact[:, 0] * weights[0].double(), rtol=2 * ROUNDING[dtype], atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gate_is_silu_from_the_smallest_to_the_largest(dtype: torch.dtype) -> None:
    gates = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, -1e-30, 1e-30, torch.inf, -1e30, 1e30])]).to(
        dtype
    )
    gate_up = torch.stack([gates, torch.ones_like(gates)], dim=1)
    exact = gates.double() * torch.sigmoid(gates.double())
    found = library_of(dtype).gated(gate_up)[:, 0].double()
    assert torch.allclose(found, exact, rtol=4 * ROUNDING[dtype], atol=1e-36)
    assert library_of(dtype).gated(torch.full((1, 2), torch.nan, dtype=dtype)).isnan().all()


def steps(counts: list[int], starts: list[int] | None = None, window: int = 0) -> Steps:
    return Steps(counts=torch.tensor(counts), starts=torch.tensor(starts or [0] * len(counts)), window=window)


def exact_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int) -> torch.Tensor:
    """One sequence, in double precision."""
    k, v = (x.double().repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = torch.einsum("tqd,sqd->qts", q.double(), k) * scale
    query, key = torch.arange(q.shape[0])[:, None], torch.arange(q.shape[0])
    hidden = (key > query) | (key <= query - window) if window else key > query
    return torch.einsum("qts,sqd->tqd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("head_dim", "num_query_heads", "num_key_heads"), [(8, 4, 2), (64, 9, 3), (80, 5, 5), (128, 16, 2), (320, 2, 1)]
)
@pytest.mark.parametrize("window", [0, 21])
def test_attention_is_right_and_the_same_however_it_is_cut(
    dtype: torch.dtype, head_dim: int, num_query_heads: int, num_key_heads: int, window: int
) -> None:
    """Of whole sequences, in pieces over a cache with pages of any size, in any order and of whatever stood there before."""
    library, length, scale = library_of(dtype), 131, head_dim**-0.5
    q, k, v = (
        random(length, heads, head_dim, dtype=dtype, seed=heads)
        for heads in (num_query_heads, num_key_heads, num_key_heads)
    )
    whole = library.attention(q, k, v, None, steps([length], window=window), scale)
    error = (whole.double() - exact_attention(q, k, v, scale, window)).abs().max()
    assert error < (2e-5 if dtype == torch.float32 else 2e-2)
    for block_size in (32, 16, 1, 64):
        num_blocks = -(-length // block_size)
        table = torch.randperm(num_blocks + 4, generator=torch.Generator().manual_seed(1))[
            None, :num_blocks
        ].contiguous()
        for pieces in ([length], [50, 81], [100] + [1] * 31, [33, 1, 1, 60, 36]):
            shape = (num_blocks + 4, num_key_heads, block_size * head_dim)
            used = [torch.full(shape, torch.nan, dtype=dtype) for _ in range(2)]
            pages = Pages(k=used[0], v=used[1], tables=table, block_size=block_size)
            at = 0
            for count in pieces:
                own = slice(at, at + count)
                found = library.attention(q[own], k[own], v[own], pages, steps([count], [at], window), scale)
                assert torch.equal(found, whole[own])
                at += count


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_a_sequence_is_the_same_beside_others(dtype: torch.dtype, two_threads: None) -> None:
    library, counts = library_of(dtype), [1, 70, 3, 130, 33]
    q, k, v = (random(sum(counts), heads, 16, dtype=dtype, seed=heads) for heads in (6, 2, 2))
    together = library.attention(q, k, v, None, steps(counts), 0.25)
    torch.set_num_threads(1)
    for own_q, own_k, own_v, found in zip(*(x.split(counts) for x in (q, k, v, together)), strict=True):
        assert torch.equal(library.attention(own_q, own_k, own_v, None, steps([own_q.shape[0]]), 0.25), found)
