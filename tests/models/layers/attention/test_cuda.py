"""What surrounds the GPU kernels, with kernels written in plain torch: equal to the CPU backend on the same steps."""

from typing import Any

import numpy as np
import pytest
import torch

from models.layers.attention import cuda as attention_cuda
from models.layers.attention.attention import AttentionBackend, KvCache, KvSpec, Layout
from models.layers.attention.cuda import gathered_backend, paged_backend
from models.layers.kernels import attention_kernels
from tests.helpers.models.paged import BACKEND, Shape, Step, make_step, naive
from tests.models.layers.attention.test_cpu import SHAPES


def varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """flash_attn_varlen_func: each sequence's last query is aligned with its last key; k and v are packed, or pages
    [N, B, K, D] where a block table is given."""
    for tensor in (cu_seqlens_q, cu_seqlens_k, *([] if block_table is None else [block_table])):
        assert tensor.dtype == torch.int32
        assert tensor.is_contiguous()
    assert all(tensor.stride(-1) == 1 for tensor in (q, k, v))
    assert causal
    assert window_size[1] == 0
    queries, keys = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert (max_seqlen_q, max_seqlen_k) == (max(queries), max(keys))
    assert cu_seqlens_q[0] == 0
    assert cu_seqlens_q[-1] == q.shape[0]
    out = torch.full_like(q, torch.nan)
    for index, (num_queries, num_keys) in enumerate(zip(queries, keys, strict=True)):
        first_query, first_key = int(cu_seqlens_q[index]), int(cu_seqlens_k[index])
        if block_table is None:
            own = [x[first_key : first_key + num_keys] for x in (k, v)]
        else:
            own = [x[block_table[index].long()].flatten(0, 1)[:num_keys] for x in (k, v)]
        group = q.shape[1] // k.shape[-2]
        own_k, own_v = (x.repeat_interleave(group, dim=1).transpose(0, 1).float() for x in own)  # [Q, Tk, D]
        own_q = q[first_query : first_query + num_queries].transpose(0, 1).float()
        scores = own_q @ own_k.transpose(1, 2) * softmax_scale
        hidden = torch.ones(num_queries, num_keys, dtype=torch.bool).triu_(num_keys - num_queries + 1)
        if window_size[0] >= 0:
            hidden |= torch.ones_like(hidden).tril_(num_keys - num_queries - window_size[0] - 1)
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
        out[first_query : first_query + num_queries] = (weights @ own_v).transpose(0, 1).to(q.dtype)
    return out


def packed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Torch's own kernel as we call it: packed keys, causal, fewer key than query heads where the model has fewer."""
    assert k.shape == v.shape
    assert all(tensor.is_contiguous() for tensor in (q, k, v))
    *boundaries, scale, window_size = rest
    return varlen(q, k, v, *boundaries, softmax_scale=scale, causal=True, window_size=window_size)


BACKENDS = {"paged": paged_backend(varlen), "gathered": gathered_backend(packed)}


@pytest.mark.parametrize("kind", list(BACKENDS))
@pytest.mark.parametrize("name", list(SHAPES))
def test_the_gpu_backends_compute_what_the_cpu_backend_computes(kind: str, name: str) -> None:
    step = make_step(SHAPES[name])
    torch.testing.assert_close(step.run(BACKENDS[kind]), step.run(BACKEND), atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", list(BACKENDS))
@pytest.mark.parametrize("name", ["mixed", "shared blocks", "blocks of an odd size"])
def test_the_gpu_backends_write_the_same_tokens_to_the_same_blocks(kind: str, name: str) -> None:
    step = make_step(SHAPES[name])
    ours, reference = step.cache(BACKENDS[kind]), step.cache(BACKEND)
    step.run(BACKENDS[kind], ours)
    step.run(BACKEND, reference)
    assert torch.equal(ours.k, reference.k.transpose(1, 2))
    assert torch.equal(ours.v, reference.v.transpose(1, 2))


@pytest.mark.parametrize("kind", list(BACKENDS))
@pytest.mark.parametrize("counts", [[1], [5], [3, 1, 9, 70]])
def test_without_a_cache_the_gpu_backends_attend_to_what_the_step_brings(kind: str, counts: list[int]) -> None:
    step = make_step(Shape(sequences=[(0, count) for count in counts]))
    layout = Layout(counts=np.array(counts), starts=np.zeros(len(counts), dtype=np.int64))
    found, reference = (attend_whole(backend, step, layout) for backend in (BACKENDS[kind], BACKEND))
    torch.testing.assert_close(found, reference, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", [*BACKENDS, "cpu"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("families", [(), ((1, 4, 9),)])
def test_a_sequence_may_look_at_tokens_of_its_own_step(
    kind: str, window: int | None, families: tuple[tuple[int, int, int], ...]
) -> None:
    """A tree: 9 tokens, three branches behind them, and one behind the second of these."""
    backend = {**BACKENDS, "cpu": BACKEND}[kind]
    counts = np.array([9, 1, 4, 2, 3])
    ways = [[0], [0, 1], [0, 2], [0, 3], [0, 2, 4]]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(int(counts.sum()), heads, 8, generator=generator) for heads in (4, 2, 2))
    parts = np.split(np.random.default_rng(0).permutation(40)[: counts.sum()], np.cumsum(counts)[:-1])
    places = [np.concatenate([parts[index] for index in way]) for way in ways]
    tables = np.stack([np.resize(place, 16) for place in places]).astype(np.int64)
    starts = np.array([place.size for place in places]) - counts
    layout = Layout(counts=counts, starts=starts, tables=tables, block_size=1, families=families)
    size = backend.cache_shape(KvSpec(num_kv_heads=2, head_dim=8), 40, 1)
    cache = KvCache(k=torch.full(size, torch.nan), v=torch.full(size, torch.nan))
    found = backend.attend(q, k, v, cache, backend.plan(layout, torch.device("cpu"), window), 8**-0.5)
    own = [x.split(counts.tolist()) for x in (q, k, v)]
    expected = [
        naive(
            own[0][way[-1]],
            torch.cat([own[1][each] for each in way]),
            torch.cat([own[2][each] for each in way]),
            window,
        )
        for way in ways
    ]
    torch.testing.assert_close(found.double(), torch.cat(expected), atol=2e-5, rtol=0)


def attend_whole(backend: AttentionBackend, step: Step, layout: Layout) -> torch.Tensor:
    plan = backend.plan(layout, torch.device("cpu"))
    return backend.attend(step.q, step.k, step.v, None, plan, step.scale)


def test_queries_that_are_part_of_a_wider_tensor_are_taken_too() -> None:
    """The model hands over views of one fused projection."""
    step = make_step(SHAPES["mixed"])
    fused = torch.cat([step.q, step.k, step.v], dim=1)
    q, k, v = fused.split([4, 2, 2], dim=1)
    assert not v.is_contiguous()
    for backend in BACKENDS.values():
        plan = backend.plan(step.layout, torch.device("cpu"))
        found = backend.attend(q, k, v, step.cache(backend), plan, step.scale)
        torch.testing.assert_close(found.double(), step.expected(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("most", [1, 10, 40])
@pytest.mark.parametrize("name", ["mixed", "one kv head", "shared blocks", "a window", "decodes only"])
def test_what_is_gathered_is_bounded_and_no_head_is_repeated(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[torch.Size] = []

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> torch.Tensor:
        gathered.append(k.shape)
        return packed(q, k, v, *rest)

    monkeypatch.setattr(attention_cuda, "GATHERED_TOKENS", most)
    step = make_step(SHAPES[name])
    torch.testing.assert_close(step.run(gathered_backend(kernel)).double(), step.expected(), atol=2e-5, rtol=0)
    lengths = step.layout.starts + step.layout.counts
    assert len(gathered) > 1
    assert all(num_keys <= max(most, lengths.max()) for num_keys, _, _ in gathered)
    assert {heads for _, heads, _ in gathered} == {SHAPES[name].num_kv_heads}


def test_sequences_are_gathered_together_as_far_as_they_fit() -> None:
    cuts = attention_cuda._cuts(np.array([3, 4, 5, 20, 1, 9, 1]), 10)
    assert [(cut.start, cut.stop) for cut in cuts] == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]


def new_varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *boundaries: Any,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Torch 2.13's signature, as far as it is used."""
    assert enable_gqa or query.shape[1] == key.shape[1]
    return packed(query, key, value, *boundaries, scale, window_size)


def old_varlen_attn(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *boundaries: Any, is_causal: bool = False
) -> torch.Tensor:
    """Torch 2.10's, which knows no scale, no windows and no heads that are shared."""
    assert is_causal
    assert query.shape[1] == key.shape[1]
    return packed(query, key, value, *boundaries, query.shape[-1] ** -0.5, (-1, 0))


@pytest.mark.parametrize("varlen_attn", [new_varlen_attn, old_varlen_attn])
@pytest.mark.parametrize("name", ["mixed", "one kv head", "as many kv heads"])
def test_torchs_kernel_is_called_as_its_release_wants_it(
    name: str, varlen_attn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    step = make_step(SHAPES[name])
    found = step.run(gathered_backend(attention_kernels._torch_varlen()))
    torch.testing.assert_close(found.double(), step.expected(), atol=2e-5, rtol=0)


def test_pages_of_flash_attention_have_the_size_its_kernel_takes() -> None:
    assert BACKENDS["paged"].block_size % 256 == 0
