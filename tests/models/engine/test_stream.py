"""The engine for many callers: each gets its own answer, whatever the others do, and nobody waits for ever."""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from models import AsyncEngine, Engine, Output, SamplingParams
from models.engine.options import EngineOptions
from models.engine.scheduling.request import Delta
from models.errors import EngineError, RequestError
from models.loading.load import LoadedModel
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_engine import GREEDY, MakeEngine, blocks, failing_after, paused_after, prompts, tokens

LONG = replace(GREEDY, max_tokens=100)
PATIENCE_S = 60


@contextmanager
def serving(engine: Engine) -> Iterator[AsyncEngine]:
    """The engine behind its thread, closed at the end."""
    served = AsyncEngine(engine)
    try:
        yield served
    finally:
        served.close()


@asynccontextmanager
async def patience() -> AsyncIterator[None]:
    """A test that hangs fails."""
    async with asyncio.timeout(PATIENCE_S):
        yield


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Runs a coroutine function in an event loop of its own."""

    async def patient() -> Any:
        async with patience():
            return await main()

    return asyncio.run(patient())


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture
def paused(make_engine: MakeEngine, sharp: LoadedModel, gate: threading.Event) -> Engine:
    return make_engine(paused_after(sharp, 5, gate), block_size=4)


async def collect(stream: AsyncIterator[Delta]) -> list[Delta]:
    return [delta async for delta in stream]


@pytest.mark.parametrize("options", [{}, {"max_num_seqs": 2}, blocks(30, 4)])
def test_concurrent_requests_get_what_the_engine_alone_gives_them(
    make_engine: MakeEngine, alone: list[Output], options: dict[str, int]
) -> None:
    with serving(make_engine(**options)) as engine:

        async def main() -> list[Output]:
            calls = [engine.generate(str(index), prompts()[index % 6], GREEDY) for index in range(18)]
            return await asyncio.gather(*calls)

        outputs = run(main)
    assert tokens(outputs) == tokens(alone) * 3


def test_seeds_of_requests_key_their_draws(make_engine: MakeEngine) -> None:
    params = replace(GREEDY, temperature=1.0)
    [expected] = make_engine().generate([prompts()[2]], replace(params, seed=7))
    with serving(make_engine()) as engine:

        async def main() -> list[Output]:
            return await asyncio.gather(
                *(engine.generate(str(n), prompts()[2], params, seed=seed) for n, seed in enumerate((7, 8, 7)))
            )

        first, other, again = tokens(run(main))
    assert first == again == expected.token_ids != other


def test_deltas_put_together_are_the_output(
    make_engine: MakeEngine, speaking: LoadedModel, tokenizer: Tokenizer
) -> None:
    params = SamplingParams(max_tokens=30, temperature=0.0, stop=("\0",))
    expected = make_engine(speaking, tokenizer=tokenizer).generate(prompts(), params)
    with serving(make_engine(speaking, tokenizer=tokenizer)) as engine:

        async def main() -> list[list[Delta]]:
            streams = [engine.stream(str(index), prompt, params) for index, prompt in enumerate(prompts())]
            return await asyncio.gather(*map(collect, streams))

        found: list[list[Delta]] = run(main)
    for deltas, output in zip(found, expected, strict=True):
        assert "".join(delta.text for delta in deltas) == output.text
        assert [token for delta in deltas for token in delta.token_ids] == output.token_ids
        assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + [output.finish_reason]


def test_log_probabilities_come_with_their_tokens_and_the_prompts_with_the_first(make_engine: MakeEngine) -> None:
    params = replace(GREEDY, logprobs=2, prompt_logprobs=1)
    prompt = prompts()[0]

    async def main() -> tuple[list[Delta], Output]:
        with serving(make_engine()) as served:
            return await collect(served.stream("a", prompt, params)), await served.generate("b", prompt, params)

    deltas, output = run(main)
    assert [len(delta.logprobs or ()) for delta in deltas] == [len(delta.token_ids) for delta in deltas]
    assert [entry for delta in deltas for entry in delta.logprobs or ()] == output.logprobs
    assert deltas[0].prompt_logprobs == output.prompt_logprobs
    assert all(delta.prompt_logprobs is None for delta in deltas[1:])


def test_a_consumer_that_leaves_its_stream_frees_its_blocks(paused: Engine, gate: threading.Event) -> None:
    with serving(paused) as engine:

        async def main() -> None:
            async for delta in engine.stream("left", prompts()[2], LONG):
                assert delta.finish_reason is None
                break
            await asyncio.sleep(0)
            gate.set()
            await until(lambda: engine.stats.num_blocks_held == 0)

        run(main)
        assert engine.stats.num_steps < 100  # it did not run to its end


def test_a_caller_that_is_cancelled_frees_its_blocks_and_disturbs_nobody(
    paused: Engine, gate: threading.Event, alone: list[Output]
) -> None:
    with serving(paused) as engine:

        async def main() -> list[Output]:
            leaving = asyncio.create_task(engine.generate("leaving", prompts()[2], LONG))
            staying = [asyncio.create_task(engine.generate(str(n), prompts()[n], GREEDY)) for n in range(6)]
            await until(lambda: engine.stats.num_running >= 1)
            leaving.cancel()
            await asyncio.wait([leaving])
            gate.set()
            outputs = await asyncio.gather(*staying)
            assert engine.stats.num_steps < 60
            assert leaving.cancelled()
            return outputs

        assert tokens(run(main)) == tokens(alone)


def test_abort_ends_a_stream_with_what_there_is(paused: Engine, gate: threading.Event) -> None:
    with serving(paused) as engine:

        async def main() -> list[Delta]:
            deltas: list[Delta] = []
            async for delta in engine.stream("a", prompts()[2], LONG):
                deltas.append(delta)
                if len(deltas) == 3:
                    await engine.abort("a")
                    gate.set()
            await engine.abort("a")
            return deltas

        deltas: list[Delta] = run(main)
    assert len(deltas) > 3
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["abort"]
    assert deltas[-1] == Delta(token_ids=[], text="", finish_reason="abort")


def test_the_last_delta_of_a_stream_holds_no_more_than_the_others(make_engine: MakeEngine) -> None:
    async def main() -> list[Delta]:
        with serving(make_engine()) as served:
            return await collect(served.stream("a", prompts()[2], LONG))

    sizes = [len(pickle.dumps(delta, pickle.HIGHEST_PROTOCOL)) for delta in run(main)]
    assert len(sizes) == LONG.max_tokens
    assert max(sizes) < 200  # a field's name, of the longest, and a token of 3 bytes


def test_a_bad_request_is_refused_alone(make_engine: MakeEngine, alone: list[Output]) -> None:
    not_a_prompt: Any = [5, "six"]
    bad = [[], [5] * 200, [5, 10**6], not_a_prompt]
    with serving(make_engine()) as engine:

        async def main() -> list[Output | BaseException]:
            calls = [engine.generate(str(n), prompt, GREEDY) for n, prompt in enumerate([*bad, *prompts()])]
            return await asyncio.gather(*calls, return_exceptions=True)

        answers = run(main)
    assert [type(answer) for answer in answers[:4]] == [RequestError, RequestError, RequestError, TypeError]
    assert tokens(answers[4:]) == tokens(alone)


def test_a_request_id_in_use_is_refused_and_its_owner_is_not_disturbed(paused: Engine, gate: threading.Event) -> None:
    with serving(paused) as engine:

        async def main() -> Output:
            owner = asyncio.create_task(engine.generate("same", prompts()[2], LONG))
            await until(lambda: engine.stats.num_running >= 1)
            second, third = (asyncio.create_task(engine.generate("same", prompts()[3], GREEDY)) for _ in range(2))
            await asyncio.sleep(0)  # both have asked, and one leaves before it hears that the id is in use
            third.cancel()
            await asyncio.wait([third])
            gate.set()
            with pytest.raises(RequestError, match="in use"):
                await second
            return await owner

        assert run(main).finish_reason == "length"


def test_the_id_of_a_request_that_was_left_may_be_used_again_at_once(
    paused: Engine, gate: threading.Event, alone: list[Output]
) -> None:
    with serving(paused) as engine:

        async def main() -> Output:
            left = asyncio.create_task(engine.generate("same", prompts()[2], LONG))
            await until(lambda: engine.stats.num_running >= 1)
            left.cancel()
            await asyncio.wait([left])
            again = asyncio.create_task(engine.generate("same", prompts()[3], GREEDY))
            await asyncio.sleep(0)
            gate.set()
            return await again

        assert run(main).token_ids == alone[3].token_ids


def test_callers_may_live_in_several_event_loops(make_engine: MakeEngine, alone: list[Output]) -> None:
    answers: dict[int, list[Output]] = {}
    with serving(make_engine()) as engine:

        def caller(number: int) -> None:
            async def main() -> list[Output]:
                return await asyncio.gather(
                    *(engine.generate(f"{number}/{n}", prompt, GREEDY) for n, prompt in enumerate(prompts()))
                )

            answers[number] = run(main)

        threads = [threading.Thread(target=caller, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert [tokens(answers[number]) for number in range(3)] == [tokens(alone)] * 3


def test_a_caller_whose_event_loop_is_gone_disturbs_nobody(
    paused: Engine, gate: threading.Event, alone: list[Output]
) -> None:
    with serving(paused) as engine:

        async def asks_and_leaves() -> None:
            task = asyncio.create_task(engine.generate("gone", prompts()[2], LONG))
            await until(lambda: engine.stats.num_running >= 1)
            task.cancel()

        run(asks_and_leaves)
        gate.set()
        output = run(lambda: engine.generate("next", prompts()[3], GREEDY))
        assert output.token_ids == alone[3].token_ids
        run(lambda: until(lambda: engine.stats.num_blocks_held == 0))


def test_a_failed_step_is_told_to_everybody_in_flight_and_to_everybody_later(
    sharp: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    failing = failing_after(sharp, 4, RuntimeError("the device is gone"))
    with serving(Engine(failing, tokenizer=None, options=EngineOptions(cache_bytes=2**22, max_num_seqs=2))) as engine:

        async def main() -> list[Any]:
            calls = [engine.generate(str(n), prompt, GREEDY) for n, prompt in enumerate(prompts())]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for later in (
                engine.generate("later", prompts()[2], GREEDY),
                collect(engine.stream("later", prompts()[2], GREEDY)),
            ):
                with pytest.raises(EngineError, match="the device is gone"):
                    await later
            await engine.abort("0")
            return answers

        answers = run(main)
    assert [type(answer) for answer in answers] == [EngineError] * 6
    assert all("the device is gone" in str(answer) for answer in answers)
    assert "the engine failed" in caplog.text


def test_closing_tells_everybody_who_still_waits(sharp: LoadedModel, gate: threading.Event) -> None:
    loaded = paused_after(sharp, 5, gate)
    served = AsyncEngine(Engine(loaded, tokenizer=None, options=EngineOptions(cache_bytes=2**22, max_num_seqs=2)))

    async def main() -> list[Any]:
        calls = [asyncio.create_task(served.generate(str(n), prompts()[2], LONG)) for n in range(5)]
        await until(lambda: served.stats.num_running >= 1)
        calls.append(asyncio.create_task(served.generate("just asked", prompts()[2], LONG)))
        await asyncio.sleep(0)
        gate.set()
        served.close()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(EngineError, match="closed"):
            await served.generate("later", prompts()[2], GREEDY)
        return answers

    answers = run(main)
    assert [type(answer) for answer in answers] == [EngineError] * 6
    assert all("closed before the request finished" in str(answer) for answer in answers)


def test_an_idle_engine_closes_and_may_be_closed_twice(make_engine: MakeEngine) -> None:
    engine = AsyncEngine(make_engine())
    engine.close()
    engine.close()
