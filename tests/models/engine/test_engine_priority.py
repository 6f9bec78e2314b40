"""Online traffic between batch requests: both come to the tokens they give alone, in one engine and behind one thread."""

import asyncio
import itertools
import threading
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from models import Engine, Output, SamplingParams
from models.engine.options import EngineOptions
from models.errors import RequestError
from models.loading.load import LoadedModel
from tests.helpers.matrix import first_of_each, first_quick
from tests.helpers.models.tiny_engine import (
    GREEDY,
    OVERLAPS,
    MakeEngine,
    blocks,
    outputs_in,
    paused_after,
    prompts,
    tokens,
)
from tests.models.engine.test_engine_states import tight
from tests.models.engine.test_stream import run, serving, until

ONLINE_LENGTHS = (3, 11, 40, 5, 18)
SAMPLED = SamplingParams(max_tokens=20, temperature=0.9, top_k=40, top_p=0.97, ignore_eos=True)
KINDS = {"greedy": GREEDY, "sampled": SAMPLED}
LAYOUTS: dict[str, dict[str, Any]] = {
    "no slot is free": {"max_num_seqs": 3},
    "no block is free": blocks(36, 4),  # online requests need 35 where all five run at once, and would else preempt each other
    "no block is free, chunks of 9, online of 5": {
        **blocks(30, 4), "max_num_batched_tokens": 9, "online_batched_tokens": 5,
    },
    "one sequence at a time": {"max_num_seqs": 1},
}  # fmt: skip
STATE_LAYOUTS: dict[str, dict[str, Any]] = {
    "no slot is free": {"max_num_seqs": 3},
    "no block is free": tight(4, 30, 4),
    "no block is free, chunks of 9, online of 5": tight(3, 30, 4, max_num_batched_tokens=9, online_batched_tokens=5),
}


def online_prompts() -> list[list[int]]:
    return prompts(ONLINE_LENGTHS, seed=1)


def seeded(kind: SamplingParams, count: int) -> list[SamplingParams]:
    return [replace(kind, seed=index) for index in range(count)]


def serve_both(engine: Engine, kind: SamplingParams) -> list[Output]:
    """All batch prompts at once, and an online one every fourth step. The outputs of both, batch first."""
    found: dict[str, Output] = {}
    arrivals = list(enumerate(zip(online_prompts(), seeded(kind, 5), strict=True)))
    for index, (prompt, params) in enumerate(zip(prompts(), seeded(kind, 6), strict=True)):
        engine.add(f"batch {index}", prompt, params)
    for step in itertools.count():
        if not engine.has_work and not arrivals:
            break
        if arrivals and step % 4 == 3:
            index, (prompt, params) = arrivals.pop(0)
            engine.add(f"online {index}", prompt, params, priority="online")
        found |= outputs_in(engine.step())
        engine.check_integrity()
    return [found[f"batch {index}"] for index in range(6)] + [found[f"online {index}"] for index in range(5)]


def each_alone(loaded: LoadedModel, kind: SamplingParams) -> list[Output]:
    """What each request gives when nothing else runs and everything fits, batch first."""
    outputs: list[Output] = []
    for prompt, params in zip(prompts() + online_prompts(), [*seeded(kind, 6), *seeded(kind, 5)], strict=True):
        with Engine(loaded, tokenizer=None, options=EngineOptions(cache_bytes=2**22, max_num_seqs=1)) as engine:
            outputs += engine.generate([prompt], params)
    return outputs


@pytest.fixture(scope="session")
def undisturbed(sharp: LoadedModel) -> dict[str, list[Output]]:
    return {name: each_alone(sharp, kind) for name, kind in KINDS.items()}


@pytest.fixture(scope="session")
def undisturbed_hybrid(hybrid: LoadedModel) -> dict[str, list[Output]]:
    return {name: each_alone(hybrid, kind) for name, kind in KINDS.items()}


@pytest.fixture(scope="session")
def online_alone(undisturbed: dict[str, list[Output]]) -> list[Output]:
    return undisturbed["greedy"][6:]


@pytest.mark.parametrize("overlap", first_quick(OVERLAPS))
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_requests_of_both_priorities_give_the_tokens_they_give_alone(
    make_engine: MakeEngine,
    undisturbed: dict[str, list[Output]],
    layout: str,
    kind: str,
    overlap: str,
) -> None:
    with OVERLAPS[overlap]():
        engine = make_engine(**LAYOUTS[layout])
    outputs = serve_both(engine, KINDS[kind])
    assert engine.stats.by_priority["batch"].num_preemptions > 0
    assert engine.stats.by_priority["online"].num_preemptions == 0
    assert tokens(outputs) == tokens(undisturbed[kind])


@pytest.mark.parametrize(("kind", "layout"), first_of_each(product(KINDS, STATE_LAYOUTS), kind=lambda case: case[0]))
def test_recurrent_sequences_that_gave_way_give_the_tokens_they_give_alone(
    make_engine: MakeEngine,
    hybrid: LoadedModel,
    undisturbed_hybrid: dict[str, list[Output]],
    layout: str,
    kind: str,
) -> None:
    engine = make_engine(hybrid, **STATE_LAYOUTS[layout])
    outputs = serve_both(engine, KINDS[kind])
    assert engine.stats.by_priority["batch"].num_preemptions > 0
    assert tokens(outputs) == tokens(undisturbed_hybrid[kind])


def test_an_online_request_has_its_first_token_when_its_first_step_is_done(make_engine: MakeEngine) -> None:
    engine = make_engine(max_num_seqs=2)
    for index in (3, 4, 5):
        engine.add(str(index), prompts()[index], GREEDY)
    for _ in range(4):
        engine.step()
    engine.add("online", prompts()[3], GREEDY, priority="online", is_streamed=True)
    brought = [engine.step() for _ in range(2)]  # one step was on its way, the next is the request's
    load = engine.stats.by_priority
    assert [each.request_id for each in brought[1]] == ["online"]
    assert (load["online"].num_running, load["online"].num_waiting) == (1, 0)
    assert (load["batch"].num_running, load["batch"].num_waiting) == (1, 2)
    engine.abort("online")
    engine.abort_all("batch")


def test_the_engine_counts_by_priority(make_engine: MakeEngine) -> None:
    engine = make_engine(block_size=4)
    serve_both(engine, GREEDY)
    stats = engine.stats
    batch, online = stats.by_priority["batch"], stats.by_priority["online"]
    assert (batch.num_requests, batch.num_finished, batch.num_prompt_tokens) == (6, 6, sum(map(len, prompts())))
    assert (online.num_requests, online.num_finished, online.num_prompt_tokens) == (5, 5, sum(ONLINE_LENGTHS))
    assert (batch.num_generated_tokens, online.num_generated_tokens) == (120, 100)
    assert (stats.num_waiting, stats.num_running, stats.num_preemptions) == (0, 0, 0)
    assert (batch.num_blocks_held, online.num_blocks_held, stats.num_blocks_held) == (0, 0, 0)
    assert stats.num_blocks_idle > 0


def test_aborting_all_batch_requests_leaves_the_online_ones(
    make_engine: MakeEngine, online_alone: list[Output]
) -> None:
    engine = make_engine(max_num_seqs=2)
    for index in range(4):
        engine.add(f"batch {index}", prompts()[index], GREEDY)
    engine.step()
    engine.add("online", online_prompts()[0], GREEDY, priority="online")
    engine.step()
    assert engine.abort_all("batch") == [f"batch {index}" for index in range(4)]
    assert engine.abort_all("batch") == []
    found: dict[str, Output] = {}
    while engine.has_work:
        found |= outputs_in(engine.step())
    assert found["online"].token_ids == online_alone[0].token_ids
    assert [found[f"batch {index}"].finish_reason for index in range(4)] == ["abort"] * 4
    assert engine.stats.by_priority["batch"].num_aborted == 4


def test_a_priority_that_does_not_exist_is_refused(make_engine: MakeEngine) -> None:
    with pytest.raises(RequestError, match="priority was 'urgent'; it must be online or batch"):
        make_engine().add("a", [3], GREEDY, priority="urgent")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"max_num_seqs": 3}, blocks(30, 4)], ids=["no slot is free", "no block is free"])
def test_a_task_of_online_calls_beside_one_of_batch_calls(
    make_engine: MakeEngine, alone: list[Output], online_alone: list[Output], options: dict[str, int]
) -> None:
    with serving(make_engine(**options)) as engine:

        async def batch() -> list[Output]:
            calls = [engine.generate(f"batch {index}", prompts()[index % 6], GREEDY) for index in range(24)]
            return await asyncio.gather(*calls)

        async def online() -> list[list[int]]:
            await until(lambda: engine.stats.num_running > 0)
            found: list[list[int]] = []
            for index, prompt in enumerate(online_prompts()):
                stream = engine.stream(f"online {index}", prompt, GREEDY, priority="online")
                found.append([token async for delta in stream for token in delta.token_ids])
            return found

        async def main() -> tuple[list[Output], list[list[int]]]:
            return await asyncio.gather(batch(), online())

        batch_outputs, online_tokens = run(main)
        assert engine.stats.by_priority["batch"].num_preemptions > 0
    assert tokens(batch_outputs) == tokens(alone) * 4
    assert online_tokens == tokens(online_alone)


def test_an_online_request_is_in_the_first_step_that_begins_after_it_came(
    make_engine: MakeEngine, sharp: LoadedModel, gate: threading.Event
) -> None:
    with serving(make_engine(paused_after(sharp, 5, gate))) as engine:

        async def main() -> None:
            batch = asyncio.ensure_future(engine.generate("batch", prompts()[2], GREEDY))
            await until(lambda: engine.stats.by_priority["batch"].num_generated_tokens == 5)
            await until(lambda: engine.stats.num_steps >= 6)  # the sixth waits for the gate
            online = asyncio.ensure_future(engine.generate("online", prompts()[2], GREEDY, priority="online"))
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(batch, online)

        run(main)
        assert engine.stats.num_steps == 6 + GREEDY.max_tokens


def test_on_drain_batch_callers_get_what_there_is_and_online_ones_all(
    make_engine: MakeEngine, sharp: LoadedModel, gate: threading.Event, online_alone: list[Output]
) -> None:
    with serving(make_engine(paused_after(sharp, 5, gate))) as engine:

        async def main() -> tuple[list[Output], Output]:
            batch = asyncio.gather(*(engine.generate(str(n), prompts()[n], GREEDY) for n in range(4)))
            online = asyncio.ensure_future(engine.generate("online", online_prompts()[1], GREEDY, priority="online"))
            await until(lambda: engine.stats.num_steps >= 5)
            await engine.abort_all("batch")
            gate.set()
            return await batch, await online

        outputs, online = run(main)
    assert [output.finish_reason for output in outputs] == ["abort"] * 4
    assert all(len(output.token_ids) < 20 for output in outputs)
    assert online.token_ids == online_alone[1].token_ids
