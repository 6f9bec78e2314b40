"""Equal requests are computed once while they are in flight, and each of them has its answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from actors.engine.core import EngineCore
from actors.engine.dedup import Dedup
from actors.work import Asked, EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnePassAnswer, Refused
from models import Output, SamplingParams
from models.engine.memory import MemoryPlan
from models.errors import EngineError
from models.tasks.label_tokens import LabelIds

GREEDY = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)


def work(prompts: Sequence[Sequence[int]], *, name: str = "w") -> EngineWork:
    return EngineWork.of(name, [np.array(ids, np.int32) for ids in prompts], list(range(len(prompts))))


@dataclass
class Backend:
    """Answers each request with the sum of its tokens, once `gate` is open; a request that begins
    with 0 is refused."""

    memory: MemoryPlan = field(default_factory=lambda: MemoryPlan(num_shards=1, weights_bytes=0))
    asked: list[list[list[int]]] = field(default_factory=list)
    own_labels: list[Mapping[int, LabelIds]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        del on_answered
        self.asked.append(list(work.requests()))
        self.own_labels.append(work.own_labels)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [_answer(ids) for ids in work.requests()]

    def close(self) -> None:
        pass


def _answer(ids: list[int]) -> EngineAnswer:
    if ids[0] == 0:
        return Refused(error="no")
    return Output(token_ids=[sum(ids)], text="", finish_reason="stop", num_prompt_tokens=len(ids), num_cached_tokens=0)


def counts(answers: Sequence[EngineAnswer]) -> list[tuple[list[int], int]]:
    return [(each.token_ids, each.num_cached_tokens) for each in answers if isinstance(each, Output)]


async def begun(backend: Backend, *calls: "asyncio.Task[list[EngineAnswer]]") -> None:
    """Lets calls come as far as they can without the gate."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls)


def test_equal_requests_of_one_call_are_computed_once_and_answered_in_their_order() -> None:
    async def run() -> None:
        backend = Backend()
        backend.gate.set()
        answers = await Dedup(backend).compute(work([[1, 2], [3], [1, 2], [0, 9], [3], [0, 9], [1, 2]]))
        assert backend.asked == [[[1, 2], [3], [0, 9]]]
        assert counts(answers) == [([3], 0), ([3], 0), ([3], 3), ([3], 2), ([3], 3)]
        assert [isinstance(each, Refused) for each in answers] == [False, False, False, True, False, True, False]

    asyncio.run(run())


def test_equal_prompts_with_labels_of_their_own_are_different_requests() -> None:
    async def run() -> None:
        backend = Backend()
        backend.gate.set()
        given = replace(work([[1], [1], [2], [1], [1]]), own_labels={1: ((5,),), 3: ((6,),), 4: ((5,),)})
        assert len(await Dedup(backend).compute(given)) == 5
        assert backend.asked == [[[1], [1], [2], [1]]]
        assert backend.own_labels == [{1: ((5,),), 3: ((6,),)}]

    asyncio.run(run())


def test_a_request_that_another_call_has_in_flight_is_waited_for() -> None:
    async def run() -> None:
        backend = Backend()
        dedup = Dedup(backend)
        first = asyncio.create_task(dedup.compute(work([[1], [2]], name="a")))
        second = asyncio.create_task(dedup.compute(work([[3], [2], [1]], name="b")))
        await begun(backend, first, second)
        backend.gate.set()
        assert counts(await first) == [([1], 0), ([2], 0)]
        assert counts(await second) == [([3], 0), ([2], 2), ([1], 2)]
        assert backend.asked == [[[1], [2]], [[3]]]
        await dedup.compute(work([[1]], name="c"))
        assert backend.asked[2:] == [[[1]]]  # nothing is kept once it is answered

    asyncio.run(run())


def test_calls_that_wait_for_each_other_both_end() -> None:
    async def run() -> None:
        backend = Backend()
        dedup = Dedup(backend)
        calls = [
            asyncio.create_task(dedup.compute(work([[n], [n + 1], [(n + 5) % 8 + 1]], name=str(n))))
            for n in range(1, 9)
        ]
        await begun(backend, *calls)
        backend.gate.set()
        assert [len(await call) for call in calls] == [3] * 8
        computed = [tuple(ids) for asked in backend.asked for ids in asked]
        assert len(computed) == len(set(computed)) == 9

    asyncio.run(run())


def test_what_a_call_that_is_given_up_had_in_flight_is_computed_by_those_that_wait() -> None:
    async def run() -> None:
        backend = Backend()
        dedup = Dedup(backend)
        first = asyncio.create_task(dedup.compute(work([[1], [2]], name="a")))
        second = asyncio.create_task(dedup.compute(work([[2]], name="b")))
        await begun(backend, first, second)
        first.cancel()
        backend.gate.set()
        assert counts(await second) == [([2], 0)]
        assert backend.asked == [[[1], [2]], [[2]]]
        assert first.cancelled()

    asyncio.run(run())


def test_the_failure_of_the_engine_reaches_all_that_wait() -> None:
    async def run() -> None:
        backend = Backend(error=EngineError("gone"))
        dedup = Dedup(backend)
        calls = [asyncio.create_task(dedup.compute(work([[1]], name=name))) for name in "ab"]
        await begun(backend, *calls)
        backend.gate.set()
        for call in calls:
            with pytest.raises(EngineError, match="gone"):
                await call
        assert len(backend.asked) == 1

    asyncio.run(run())


def test_an_engine_answers_as_without_it_and_computes_less(tiny_checkpoint: Callable[..., Path]) -> None:
    path = str(tiny_checkpoint("causal"))
    prompts = [[5, 6, 7, 8], [9], [5, 6, 7, 8], [9], [9]]

    def answers(*, dedup: bool) -> list[Output]:
        core = EngineCore(EngineSettings(path=path, dtype="float32", asked=Asked(sampling=GREEDY), dedup=dedup))
        try:
            return [each for each in asyncio.run(core.compute(work(prompts))) if isinstance(each, Output)]
        finally:
            core.close()

    found, expected = answers(dedup=True), answers(dedup=False)
    assert [each.token_ids for each in found] == [each.token_ids for each in expected]
    assert [each.num_cached_tokens for each in found] == [0, 0, 4 + 6, 1 + 6, 1 + 6]


def test_one_pass_work_is_computed_once_too(tiny_checkpoint: Callable[..., Path]) -> None:
    path = str(tiny_checkpoint("sequence-classification"))
    core = EngineCore(EngineSettings(path=path, dtype="float32", dedup=True))
    try:
        answers = asyncio.run(core.compute(work([[5, 6, 7], [8], [5, 6, 7]])))
    finally:
        core.close()
    first, other, again = (answer for answer in answers if isinstance(answer, OnePassAnswer))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert [each.num_cached_tokens for each in (first, other, again)] == [0, 0, 3]
