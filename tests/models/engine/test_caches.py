"""How many blocks a number of bytes gives, and the tensors behind them."""

from pathlib import Path

import pytest
import torch

from models.engine import caches
from models.engine.caches import allocate, default_bytes, free_memory, num_blocks_for
from models.errors import ConfigError
from models.layers.attention import KvSpec
from models.layers.attention_cpu import BACKEND

SPECS = [KvSpec(num_kv_heads=2, head_dim=16), KvSpec(num_kv_heads=1, head_dim=8)]  # 288 bytes a token in float32


def blocks(cache_bytes: int, *, max_num_seqs: int = 100, max_model_len: int = 100, size: int = 4) -> int:
    return num_blocks_for(
        SPECS,
        cache_bytes=cache_bytes,
        block_size=size,
        dtype=torch.float32,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
    )


def test_a_block_takes_the_keys_and_values_of_every_call_site() -> None:
    assert sum(spec.bytes_per_token(torch.float32) for spec in SPECS) == 2 * 4 * (2 * 16 + 8) == 320
    assert sum(spec.bytes_per_token(torch.bfloat16) for spec in SPECS) == 160
    assert [blocks(count) for count in (1280, 1281, 2559, 2560)] == [1, 1, 1, 2]


def test_there_are_no_more_blocks_than_all_sequences_at_full_length_can_use() -> None:
    assert blocks(2**30, max_num_seqs=3, max_model_len=9) == 3 * 3


def test_a_cache_without_a_block_is_refused_with_what_it_would_take() -> None:
    with pytest.raises(
        ConfigError, match=r"1,279 bytes holds no block of 4 tokens, which takes 1,280: .* takes 32,000"
    ):
        blocks(1279)


def test_every_call_site_gets_pages_of_its_own() -> None:
    found = allocate(SPECS, BACKEND, num_blocks=3, block_size=4, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert [tuple(cache.k.shape) for cache in found] == [(3, 2, 4, 16), (3, 1, 4, 8)]
    pages = [page for cache in found for page in (cache.k, cache.v)]
    assert len({page.data_ptr() for page in pages}) == 4
    assert all(page.dtype == torch.bfloat16 for page in pages)


def test_the_default_on_a_cpu_is_a_part_of_the_free_memory_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(caches, "free_memory", lambda: 2**30)
    assert default_bytes(cpu, None) == 2**28
    monkeypatch.setattr(caches, "free_memory", lambda: 2**50)
    assert default_bytes(cpu, None) == caches.MAX_DEFAULT_CPU_BYTES


@pytest.mark.parametrize(("fraction", "expected"), [(None, 70), (0.5, 30), (0.1, 0)])
def test_the_default_on_a_gpu_is_what_its_fraction_leaves_after_the_weights(
    monkeypatch: pytest.MonkeyPatch, fraction: float | None, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80, 100))  # 20 are taken by the weights
    assert default_bytes(torch.device("cuda"), fraction) == expected


def test_free_memory_is_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < free_memory() < 2**50
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "MemTotal: 5 kB\nMemAvailable:     3 kB\n")
    assert free_memory() == 3072
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "MemTotal: 5 kB\n")
    with pytest.raises(ConfigError, match="set cache_bytes"):
        free_memory()
