"""Deltas that are put together say what they said apart."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from actors.online.coalesce import coalesced, joined
from models.engine.scheduling.request import Delta, TokenLogprobs
from models.errors import EngineError


def delta(token: int, *, is_last: bool = False) -> Delta:
    return Delta(token_ids=[token], text=chr(token), finish_reason="length" if is_last else None)


async def engine(
    count: int, seconds: float, closed: list[bool], error: Exception | None = None
) -> AsyncGenerator[Delta]:
    try:
        for n in range(count):
            yield delta(97 + n, is_last=error is None and n == count - 1)
            await asyncio.sleep(seconds)
        if error is not None:
            raise error
    finally:
        closed.append(True)


def taken(
    count: int, seconds: float, interval: float, *, most: int = 1000, error: Exception | None = None
) -> tuple[list[Delta], list[bool]]:
    """What a reader takes who leaves after `most`, and whether the engine's stream was closed by then."""
    found: list[Delta] = []
    closed: list[bool] = []

    async def read() -> None:
        stream = coalesced(engine(count, seconds, closed), interval)
        async for piece in stream:
            found.append(piece)
            if len(found) == most:
                break
        await stream.aclose()

    asyncio.run(read())
    return found, closed


def test_the_first_comes_alone_and_the_rest_together() -> None:
    found, closed = taken(20, 0.001, 0.2)
    assert found[0].token_ids == [97]
    assert len(found) <= 3
    assert "".join(piece.text for piece in found) == "".join(chr(97 + n) for n in range(20))
    assert [piece.finish_reason for piece in found] == [None] * (len(found) - 1) + ["length"]
    assert closed


def test_a_slow_engine_is_not_held_up() -> None:
    found, _ = taken(4, 0.05, 0.0)
    assert [piece.token_ids for piece in found] == [[97], [98], [99], [100]]


def test_an_error_comes_after_what_came_before_it() -> None:
    found: list[Delta] = []

    async def read() -> None:
        async for piece in coalesced(engine(5, 0.0, [], EngineError("lost")), 0.05):
            found.append(piece)

    with pytest.raises(EngineError, match="lost"):
        asyncio.run(read())
    assert sum(len(piece.token_ids) for piece in found) == 5


def test_a_reader_who_leaves_closes_the_engines_stream() -> None:
    found, closed = taken(1000, 0.01, 0.01, most=1)
    assert len(found) == 1
    assert closed


def test_log_probabilities_stay_with_their_tokens() -> None:
    one, two = (TokenLogprobs(token_id=token, logprob=-1.0, rank=1, top={}) for token in (1, 2))
    first = Delta(token_ids=[1], text="a", logprobs=[one], prompt_logprobs=[None])
    second = Delta(token_ids=[2], text="b", logprobs=[two], finish_reason="length", num_cached_tokens=3)
    both = joined([first, second])
    assert (both.token_ids, both.text, both.logprobs) == ([1, 2], "ab", [one, two])
    assert (both.prompt_logprobs, both.finish_reason, both.num_cached_tokens) == ([None], "length", 3)
