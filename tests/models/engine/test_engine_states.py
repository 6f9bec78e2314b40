"""The engine's equivalences for a network with recurrent states: what runs beside a request, how its work is cut and
which slots it had before change no token."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import Engine, Output, SamplingParams
from models.engine.options import EngineOptions
from models.engine.scheduling.block_pool import NO_PREFIX, BlockPool
from models.layers.state import StateCache
from models.loading.load import LoadedModel
from tests.helpers.matrix import first_of_each
from tests.helpers.models.tiny_engine import GREEDY, LENGTHS, OVERLAPS, MakeEngine, drain, logprobs, prompts, tokens

STATE_BYTES = 7 * 4 * (8 * 8 * 16 + 3 * (64 + 32))  # of a sequence: seven mixers
TOKEN_BYTES = 2 * 4 * 2 * 64  # keys and values of the two hybrid layers
LAYOUTS: dict[str, dict[str, Any]] = {
    "one sequence at a time": {"max_num_seqs": 1},
    "two sequences at a time": {"max_num_seqs": 2},
    "three sequences at a time": {"max_num_seqs": 3},
    "one token a step": {"max_num_batched_tokens": 1},
    "chunks of 2": {"max_num_batched_tokens": 2},
    "chunks of 3": {"max_num_batched_tokens": 3},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "chunks of 65": {"max_num_batched_tokens": 65},
    "blocks of 1": {"block_size": 1},
    "blocks of 32": {"block_size": 32},
}


def tight(max_num_seqs: int, num_blocks: int, block_size: int, **options: int) -> dict[str, int]:
    """Engine options for exactly so many slots and blocks."""
    size = max_num_seqs * STATE_BYTES + num_blocks * block_size * TOKEN_BYTES
    return {"max_num_seqs": max_num_seqs, "cache_bytes": size, "block_size": block_size, "state_stride": 0, **options}


TIGHT: dict[str, dict[str, Any]] = {
    "three slots, blocks of 1": tight(3, 115, 1),
    "three slots, blocks of 4": tight(3, 30, 4),
    "three slots, blocks of 4, chunks of 5": tight(3, 30, 4, max_num_batched_tokens=5),
    "six slots, blocks of 16": tight(6, 14, 16),
}


@pytest.fixture(scope="session")
def undisturbed(hybrid: LoadedModel) -> list[Output]:
    """What each of `prompts()` gives greedily when nothing else runs and everything fits."""
    outputs: list[Output] = []
    for prompt in prompts():
        with Engine(hybrid, tokenizer=None, options=EngineOptions(cache_bytes=2**22, max_num_seqs=1)) as engine:
            outputs += engine.generate([prompt], GREEDY)
    return outputs


def assert_same(outputs: list[Output], expected: list[Output]) -> None:
    assert tokens(outputs) == tokens(expected)
    for output, reference in zip(outputs, expected, strict=True):
        assert logprobs(output) == pytest.approx(logprobs(reference), abs=1e-4)
        assert output.num_cached_tokens == 0


def test_the_reference_is_worth_comparing_with(undisturbed: list[Output]) -> None:
    assert all(len(set(output.token_ids)) >= 6 for output in undisturbed)
    assert len({tuple(output.token_ids) for output in undisturbed}) == len(undisturbed)
    gaps = [
        max(entry.top.values()) - min(entry.top.values()) for output in undisturbed for entry in output.logprobs or []
    ]
    assert min(gaps) > 1e-3


@pytest.mark.parametrize("layout", first_of_each(LAYOUTS, kind=lambda layout: layout.split()[0]))
def test_greedy_tokens_do_not_depend_on_how_the_work_is_cut(
    hybrid: LoadedModel, make_engine: MakeEngine, undisturbed: list[Output], layout: str
) -> None:
    engine = make_engine(hybrid, **{"max_num_seqs": 8, **LAYOUTS[layout]})
    assert_same(engine.generate(prompts(), GREEDY), undisturbed)


@pytest.mark.parametrize("layout", list(TIGHT))
def test_preempted_sequences_give_the_tokens_of_undisturbed_ones(
    hybrid: LoadedModel, make_engine: MakeEngine, undisturbed: list[Output], layout: str
) -> None:
    """What was generated before a preemption is computed again without the floor of given tokens."""
    engine = make_engine(hybrid, **TIGHT[layout])
    outputs = engine.generate(prompts(), GREEDY)
    assert engine.stats.num_preemptions > 0
    assert_same(outputs, undisturbed)


@settings(max_examples=6, deadline=None)
@given(
    max_num_seqs=st.integers(1, 6),
    spare=st.integers(0, 60),
    block_size=st.sampled_from([1, 3, 8, 16]),
    budget=st.integers(1, 40),
    order=st.permutations(range(6)),
    late=st.integers(0, 5),
    overlap=st.sampled_from(list(OVERLAPS)),
)
def test_no_way_of_running_changes_a_token(
    hybrid: LoadedModel,
    undisturbed: list[Output],
    max_num_seqs: int,
    spare: int,
    block_size: int,
    budget: int,
    order: list[int],
    late: int,
    overlap: str,
) -> None:
    num_blocks = -(-(max(110, max_num_seqs * STATE_BYTES // TOKEN_BYTES + 1) + spare) // block_size)
    options = EngineOptions(**tight(max_num_seqs, num_blocks, block_size, max_num_batched_tokens=budget))
    with OVERLAPS[overlap](), Engine(hybrid, tokenizer=None, options=options) as engine:
        for place, index in enumerate(order):
            if place >= late:
                engine.step()  # requests come while others run
            engine.add(str(index), prompts()[index], GREEDY)
        found = drain(engine)
        assert_same([found[str(index)] for index in range(6)], undisturbed)
        assert engine.stats.num_blocks_held == 0


def test_the_slot_of_an_aborted_request_starts_afresh(
    hybrid: LoadedModel, make_engine: MakeEngine, undisturbed: list[Output]
) -> None:
    engine = make_engine(hybrid, max_num_seqs=2, max_num_batched_tokens=40)
    engine.add("aborted", prompts()[5], GREEDY)
    engine.add("kept", prompts()[3], GREEDY)
    for _ in range(4):
        engine.step()
    engine.add("late", prompts()[0], GREEDY)
    engine.abort("aborted")
    found = drain(engine)
    assert found["aborted"].finish_reason == "abort"
    assert_same([found["kept"], found["late"]], [undisturbed[3], undisturbed[0]])


def test_states_full_of_garbage_change_nothing(
    hybrid: LoadedModel, make_engine: MakeEngine, undisturbed: list[Output]
) -> None:
    engine = make_engine(hybrid, max_num_seqs=4, max_num_batched_tokens=13)
    for cache in engine._runner._caches:
        if isinstance(cache, StateCache):
            cache.conv.fill_(torch.nan)
            cache.scan.fill_(torch.inf)
    assert_same(engine.generate(prompts(), GREEDY), undisturbed)


def test_no_prefix_is_shared_where_no_state_is_kept(
    hybrid: LoadedModel, make_engine: MakeEngine, undisturbed: list[Output]
) -> None:
    engine = make_engine(hybrid, block_size=4, max_num_seqs=8, state_stride=0)
    for _ in range(2):
        assert_same(engine.generate([prompts()[5]] * 3, GREEDY), [undisturbed[5]] * 3)


def test_a_pool_that_shares_no_prefixes_keeps_nothing() -> None:
    pool = BlockPool(4, 2, shares_prefixes=False)
    block = pool.allocate()
    assert pool.register(block, NO_PREFIX, [1, 2]) == NO_PREFIX
    assert pool.share([1, 2, 3]).blocks == []
    pool.release([block])
    pool.check_integrity()
    assert pool.num_held == 0
    assert pool.allocate() == block


def test_fewer_sequences_run_when_there_is_no_room_for_their_states(
    hybrid: LoadedModel, make_engine: MakeEngine, undisturbed: list[Output], caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(hybrid, max_num_seqs=200, cache_bytes=6 * STATE_BYTES, block_size=4)
    assert "max_num_seqs is 200, but only 3 sequences run at once" in caplog.text
    assert engine.stats.num_blocks == 3 * STATE_BYTES // (4 * TOKEN_BYTES)
    for index, prompt in enumerate(prompts()[:5]):
        engine.add(str(index), prompt, GREEDY)
    engine.step()
    assert (engine.stats.num_running, engine.stats.num_waiting) == (3, 2)
    found = drain(engine)
    assert_same([found[str(index)] for index in range(5)], undisturbed[:5])


def test_seeded_draws_do_not_depend_on_batch_mates(hybrid: LoadedModel, make_engine: MakeEngine) -> None:
    params = [
        SamplingParams(max_tokens=20, temperature=0.9, top_p=0.95, ignore_eos=True, seed=index)
        for index in range(len(LENGTHS))
    ]
    expected = make_engine(hybrid, max_num_seqs=8).generate(prompts(), params)
    alone = [make_engine(hybrid, max_num_seqs=1).generate([prompts()[i]], params[i])[0] for i in range(len(LENGTHS))]
    cut = make_engine(hybrid, **TIGHT["three slots, blocks of 4, chunks of 5"]).generate(prompts(), params)
    assert tokens(alone) == tokens(expected) == tokens(cut)
