"""How many blocks a number of bytes gives, and the tensors behind them."""

from collections.abc import Sequence

import pytest
import torch

from models.engine import caches
from models.engine.caches import allocate, default_bytes, num_blocks_for, num_slots_for, pages_of
from models.errors import ConfigError
from models.layers.attention.attention import KvSpec
from models.layers.state import Spec, StateCache, StateSpec
from tests.helpers.models.paged import BACKEND

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
    pages = pages_of(found)
    assert [tuple(page.shape) for page in pages] == [(3, 2, 4, 16)] * 2 + [(3, 1, 4, 8)] * 2
    assert len({page.data_ptr() for page in pages}) == 4
    assert all(page.dtype == torch.bfloat16 for page in pages)


STATE = StateSpec(num_groups=2, state_size=5, group_size=3, num_inputs=3, num_channels=7)  # 120 bytes and 42 numbers


def slots(cache_bytes: int, max_num_seqs: int, specs: Sequence[Spec] = (STATE, *SPECS, STATE)) -> int:
    return num_slots_for(specs, cache_bytes=cache_bytes, dtype=torch.bfloat16, max_num_seqs=max_num_seqs)


def test_a_state_takes_float32_for_the_scan_and_the_dtype_for_the_convolution() -> None:
    assert STATE.bytes_per_sequence(torch.bfloat16) == 4 * 2 * 3 * 5 + 2 * 3 * 7 == 162
    assert STATE.bytes_per_sequence(torch.float32) == 204


def test_as_many_sequences_run_as_have_room_for_their_states_in_half_of_the_bytes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert [slots(count, 4) for count in (8 * 324, 8 * 324 - 1, 2 * 324)] == [4, 3, 1]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "max_num_seqs is 4, but only 3 sequences run at once",
        "max_num_seqs is 4, but only 1 sequences run at once",
    ]
    with pytest.raises(ConfigError, match=r"a cache of 647 bytes has no room .* takes 324, .* at least 648"):
        slots(647, 4)
    assert slots(1, 4, SPECS) == 4  # keys and values alone


def test_blocks_get_what_the_states_leave() -> None:
    def blocks_beside(cache_bytes: int, specs: Sequence[Spec]) -> int:
        return num_blocks_for(
            specs, cache_bytes=cache_bytes, block_size=4, dtype=torch.float32, max_num_seqs=3, max_model_len=100
        )

    assert [blocks_beside(3 * 204 + count, [STATE, *SPECS]) for count in (1280, 2559, 2560)] == [1, 1, 2]
    assert blocks_beside(3 * 204, [STATE]) == 3 * 25  # without attention blocks are but numbers
    with pytest.raises(ConfigError, match="holds no block"):
        blocks_beside(3 * 204 + 1279, [STATE, *SPECS])


def test_states_have_a_row_a_slot() -> None:
    state, *pages = allocate(
        [STATE, *SPECS],
        BACKEND,
        num_blocks=3,
        block_size=4,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
        num_slots=6,
    )
    assert isinstance(state, StateCache)
    assert (state.conv.shape, state.scan.shape) == ((6, 3, 7), (6, 2, 5, 3))
    assert (state.conv.dtype, state.scan.dtype) == (torch.bfloat16, torch.float32)
    assert len(pages_of([state, *pages])) == 4


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
