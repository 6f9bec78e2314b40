"""The engine's equivalences: whatever runs beside a request, and however its work is cut, its tokens are the same."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import Engine, Output, SamplingParams
from models.engine.options import EngineOptions
from models.loading.load import LoadedModel
from tests.helpers.models.tiny_engine import GREEDY, OVERLAPS, MakeEngine, blocks, drain, logprobs, prompts, tokens

SAMPLED = SamplingParams(max_tokens=20, temperature=0.9, top_k=40, top_p=0.97, ignore_eos=True)
LAYOUTS: dict[str, dict[str, Any]] = {
    "one sequence at a time": {"max_num_seqs": 1},
    "two sequences at a time": {"max_num_seqs": 2},
    "three sequences at a time": {"max_num_seqs": 3},
    "16 sequences at a time": {"max_num_seqs": 16},
    "one token a step": {"max_num_batched_tokens": 1},
    "chunks of 3": {"max_num_batched_tokens": 3},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "chunks of 64": {"max_num_batched_tokens": 64},
    "blocks of 1": {"block_size": 1},
    "blocks of 5": {"block_size": 5},
    "blocks of 32": {"block_size": 32},
}
TIGHT: dict[str, dict[str, Any]] = {
    "blocks of 1": blocks(115, 1),
    "blocks of 4": blocks(30, 4),
    "blocks of 4 in chunks of 5": {**blocks(30, 4), "max_num_batched_tokens": 5},
    "blocks of 16": blocks(8, 16),
}


def seeded() -> list[SamplingParams]:
    """One set of sampling parameters a prompt, of many kinds."""
    kinds: list[dict[str, Any]] = [{}, {"top_k": 0}, {"top_p": 1.0}, {"top_k": 0, "top_p": 1.0}, {"min_p": 0.05}, {}]
    return [replace(SAMPLED, seed=index, **kind) for index, kind in enumerate(kinds)]


def assert_same(outputs: list[Output], expected: list[Output]) -> None:
    assert tokens(outputs) == tokens(expected)
    for output, reference in zip(outputs, expected, strict=True):
        assert logprobs(output) == pytest.approx(logprobs(reference), abs=1e-4)
        assert output.finish_reason == reference.finish_reason


def test_the_reference_is_worth_comparing_with(alone: list[Output]) -> None:
    assert all(len(set(output.token_ids)) >= 8 for output in alone)
    assert len({tuple(output.token_ids[-4:]) for output in alone}) == len(alone)
    gaps = [max(entry.top.values()) - min(entry.top.values()) for output in alone for entry in output.logprobs or []]
    assert min(gaps) > 1e-3


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_greedy_tokens_do_not_depend_on_how_the_work_is_cut(
    make_engine: MakeEngine, alone: list[Output], layout: str
) -> None:
    assert_same(make_engine(**LAYOUTS[layout]).generate(prompts(), GREEDY), alone)


@pytest.mark.parametrize("layout", list(TIGHT))
def test_preempted_sequences_give_the_tokens_of_undisturbed_ones(
    make_engine: MakeEngine, alone: list[Output], layout: str
) -> None:
    engine = make_engine(**TIGHT[layout])
    outputs = engine.generate(prompts(), GREEDY)
    assert engine.stats.num_preemptions > 0
    assert_same(outputs, alone)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_seeded_draws_do_not_depend_on_how_the_work_is_cut(make_engine: MakeEngine, layout: str) -> None:
    expected = make_engine().generate(prompts(), seeded())
    assert tokens(make_engine(**LAYOUTS[layout]).generate(prompts(), seeded())) == tokens(expected)


@pytest.mark.parametrize("layout", list(TIGHT))
def test_seeded_draws_do_not_depend_on_preemption(make_engine: MakeEngine, layout: str) -> None:
    expected = make_engine().generate(prompts(), seeded())
    engine = make_engine(**TIGHT[layout])
    assert tokens(engine.generate(prompts(), seeded())) == tokens(expected)
    assert engine.stats.num_preemptions > 0


def test_seeded_draws_depend_neither_on_batch_mates_nor_on_row_order(make_engine: MakeEngine) -> None:
    expected = make_engine().generate(prompts(), seeded())
    alone = [make_engine().generate([prompt], params)[0] for prompt, params in zip(prompts(), seeded(), strict=True)]
    backwards = make_engine(max_num_seqs=3).generate(prompts()[::-1], seeded()[::-1])
    assert tokens(alone) == tokens(expected)
    assert tokens(backwards[::-1]) == tokens(expected)


def test_different_seeds_give_different_tokens(make_engine: MakeEngine) -> None:
    params = [replace(SAMPLED, seed=seed) for seed in range(8)]
    outputs = make_engine().generate([prompts()[2]] * 8, params)
    assert len({tuple(output.token_ids) for output in outputs}) == 8


def test_without_a_seed_each_request_draws_for_itself_and_an_engine_can_be_repeated(make_engine: MakeEngine) -> None:
    first, again = (make_engine().generate([prompts()[2]] * 4, SAMPLED) for _ in range(2))
    assert len({tuple(output.token_ids) for output in first}) == 4
    assert tokens(first) == tokens(again)


def test_the_seed_of_the_parameters_wins_over_that_of_the_request(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.add("own", prompts()[2], replace(SAMPLED, seed=5), seed=1)
    engine.add("given", prompts()[2], SAMPLED, seed=5)
    engine.add("other", prompts()[2], SAMPLED, seed=1)
    found = drain(engine)
    assert found["own"].token_ids == found["given"].token_ids != found["other"].token_ids


def test_a_prefix_hit_gives_what_a_miss_gives(make_engine: MakeEngine, alone: list[Output]) -> None:
    engine = make_engine(block_size=4)
    for prompt, expected, num_cached in zip(prompts(), alone, [0, 0, 4, 32, 60, 88], strict=True):
        miss, hit = (engine.generate([prompt], GREEDY)[0] for _ in range(2))
        assert_same([miss, hit], [expected] * 2)
        assert [miss.num_cached_tokens, hit.num_cached_tokens] == [0, num_cached]


def test_prompts_that_share_a_beginning_share_its_blocks_within_one_batch(make_engine: MakeEngine) -> None:
    beginning = prompts()[4]
    family = [beginning + [token] * 3 for token in range(3, 9)]
    expected = [make_engine().generate([prompt], GREEDY)[0] for prompt in family]
    outputs = make_engine(block_size=4).generate(family, GREEDY)
    assert_same(outputs, expected)
    assert [output.num_cached_tokens for output in outputs] == [0, 64, 64, 64, 64, 64]


def test_what_an_aborted_request_left_behind_is_a_valid_prefix(make_engine: MakeEngine, alone: list[Output]) -> None:
    engine = make_engine(block_size=4, max_num_batched_tokens=40)
    engine.add("aborted", prompts()[5], GREEDY)
    engine.step()  # on its way, not taken in
    engine.abort("aborted")
    [output] = engine.generate([prompts()[5]], GREEDY)
    assert 0 < output.num_cached_tokens <= 40
    assert_same([output], [alone[5]])


def test_generated_tokens_are_a_prefix_of_the_next_turn(make_engine: MakeEngine, alone: list[Output]) -> None:
    turn = prompts()[3] + alone[3].token_ids + [5, 6, 7]
    [expected] = make_engine().generate([turn], GREEDY)
    engine = make_engine(block_size=4)
    engine.generate([prompts()[3]], GREEDY)
    [output] = engine.generate([turn], GREEDY)
    assert output.num_cached_tokens == 52  # all full blocks of the 53 tokens that are there
    assert_same([output], [expected])


def test_cached_tokens_are_those_of_others_not_those_computed_before_a_preemption(make_engine: MakeEngine) -> None:
    engine = make_engine(**blocks(12, 4), max_num_batched_tokens=3)
    outputs = engine.generate(prompts((8, 30)), replace(GREEDY, max_tokens=18))
    assert engine.stats.num_preemptions > 0
    assert [output.num_cached_tokens for output in outputs] == [0, 0]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block_size=st.sampled_from([1, 2, 3, 8, 16]),
    spare=st.integers(0, 60),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(2, 40),
    order=st.permutations(range(6)),
    late=st.integers(0, 5),
    overlap=st.sampled_from(list(OVERLAPS)),
)
def test_no_way_of_running_changes_a_token(
    sharp: LoadedModel,
    alone: list[Output],
    block_size: int,
    spare: int,
    max_num_seqs: int,
    budget: int,
    order: list[int],
    late: int,
    overlap: str,
) -> None:
    options = EngineOptions(
        **blocks(-(-(110 + spare) // block_size), block_size),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
    )
    with OVERLAPS[overlap](), Engine(sharp, tokenizer=None, options=options) as engine:
        for place, index in enumerate(order):
            if place >= late:
                engine.step()  # requests come while others run
            engine.add(str(index), prompts()[index], GREEDY)
        found = drain(engine)
        assert_same([found[str(index)] for index in range(6)], alone)
        assert engine.stats.num_blocks_held == 0


def test_max_tokens_ends_a_sequence_and_outputs_come_in_the_prompts_order(make_engine: MakeEngine) -> None:
    params = [SamplingParams(max_tokens=count, temperature=0.0, ignore_eos=True) for count in (6, 1, 4, 3, 2, 5)]
    outputs = make_engine(max_num_seqs=2).generate(prompts(), params)
    assert [len(output.token_ids) for output in outputs] == [6, 1, 4, 3, 2, 5]
    assert {output.finish_reason for output in outputs} == {"length"}
    assert [output.num_prompt_tokens for output in outputs] == [len(prompt) for prompt in prompts()]


def test_a_sequence_may_fill_the_model_length_and_the_cache_to_the_last_token(
    make_engine: MakeEngine, alone: list[Output]
) -> None:
    engine = make_engine(max_model_len=53, **blocks(11, 5))
    [output] = engine.generate([prompts()[3]], GREEDY)
    assert_same([output], [alone[3]])


def test_no_prompts_give_no_outputs(make_engine: MakeEngine) -> None:
    assert make_engine().generate([], GREEDY) == []


def test_an_aborted_request_frees_its_blocks_at_once_and_ends_with_what_it_has(
    make_engine: MakeEngine, alone: list[Output]
) -> None:
    engine = make_engine(block_size=4)
    engine.add("kept", prompts()[3], GREEDY)
    engine.add("aborted", prompts()[4], GREEDY)
    for _ in range(4):
        engine.step()
    held = engine.stats.num_blocks_held
    engine.abort("aborted")
    engine.check_integrity()
    assert held - engine.stats.num_blocks_held >= 64 // 4
    found = drain(engine)
    assert found["aborted"].finish_reason == "abort"
    assert found["aborted"].token_ids == alone[4].token_ids[:3]
    assert_same([found["kept"]], [alone[3]])


def test_a_waiting_request_can_be_aborted_and_unknown_ids_are_ignored(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=1)
    engine.add("first", prompts()[1], GREEDY)
    engine.add("waiting", prompts()[2], GREEDY)
    engine.step()
    engine.abort("waiting")
    engine.abort("waiting")
    engine.abort("never heard of")
    found = drain(engine)
    assert found["waiting"].finish_reason == "abort"
    assert found["waiting"].token_ids == []
    assert len(found["first"].token_ids) == 20
