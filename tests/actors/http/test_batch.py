"""Calls of the API in one process, without HTTP: answered as over it, drawn with seeds of their own, whatever else runs."""

import asyncio
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.http.batch import ApiEngine
from actors.work import ApiAnswer, ApiCall, ApiWork, AskedOfApi, EngineSettings
from models.errors import EngineError

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "how are you?"}]


@pytest.fixture(scope="module")
def engine(causal_path: Path) -> Iterator[ApiEngine]:
    settings = EngineSettings(
        path=str(causal_path),
        dtype="float32",
        max_num_seqs=4,
        block_size=4,
        num_threads=torch.get_num_threads(),
    )
    found = ApiEngine(settings, AskedOfApi(now=NOW))
    yield found
    found.close()


def call(path: str, **body: Any) -> ApiCall:
    return ApiCall(path=path, body=json.dumps({"model": "gpt-4o-mini", **body}).encode())


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The one event loop that an engine is asked in."""
    with asyncio.Runner() as found:
        yield found


async def answered(engine: ApiEngine, work: ApiWork) -> list[ApiAnswer]:
    return [answer for answer in await engine.compute(work) if isinstance(answer, ApiAnswer)]


def body_of(answer: ApiAnswer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.body)
    return body


def without_cache(answer: ApiAnswer) -> dict[str, Any]:
    body = body_of(answer)
    body["usage"].pop("prompt_tokens_details")
    return body


def test_the_same_work_twice_at_once_gives_the_same_answers_twice(engine: ApiEngine, runner: asyncio.Runner) -> None:
    """Ids of answers are the same again; those of what the engine runs are not."""
    calls = [call(CHAT, messages=MESSAGES, max_tokens=5, n=2), call(TEXTS, prompt=["a", "a"], max_tokens=5)]
    work = ApiWork(name="unit-0", calls=tuple(calls * 6), seeds=tuple(range(12)))

    async def both() -> tuple[list[ApiAnswer], list[ApiAnswer]]:
        first, second = await asyncio.gather(answered(engine, work), answered(engine, replace(work, name="again")))
        return first, second

    first, second = runner.run(both())
    assert [answer.status for answer in first] == [200] * 12
    assert list(map(without_cache, first)) == list(map(without_cache, second))
    bodies = list(map(body_of, first))
    assert len({body["id"] for body in bodies}) == 12
    assert {body["created"] for body in bodies} == {int(NOW.timestamp())}
    texts = {choice.get("text") or choice["message"]["content"] for body in bodies for choice in body["choices"]}
    assert len(texts) > 12  # of 24: prompts and answers of one request are drawn apart, too


def test_a_seed_of_the_body_wins(engine: ApiEngine, runner: asyncio.Runner) -> None:
    asked = call(TEXTS, prompt="a b", max_tokens=8, seed=5)
    one, other = runner.run(answered(engine, ApiWork(name="seeded", calls=(asked, asked), seeds=(1, 2))))
    assert body_of(one)["choices"] == body_of(other)["choices"]


def test_what_the_api_refuses_is_an_answer(engine: ApiEngine, runner: asyncio.Runner) -> None:
    calls = (
        call(TEXTS, prompt="x", stream=True),
        ApiCall(path=TEXTS, body=b"{"),
        call("/v1/files"),
        ApiCall(path=TEXTS, body=b"x" * (9 << 20)),
        call(TEXTS, prompt="x", max_tokens=1),
    )
    answers = runner.run(answered(engine, ApiWork(name="bad", calls=calls, seeds=(0,) * len(calls))))
    assert [answer.status for answer in answers] == [400, 400, 404, 413, 200]
    assert body_of(answers[0])["error"]["param"] == "stream"
    assert all(body_of(answer)["error"]["message"] for answer in answers[:4])


def test_an_engine_that_is_lost_answers_nothing(causal_path: Path) -> None:
    settings = EngineSettings(path=str(causal_path), dtype="float32", max_num_seqs=4, num_threads=1)
    engine = ApiEngine(settings, AskedOfApi())
    engine._model.close()
    work = ApiWork(name="lost", calls=(call(TEXTS, prompt="x"),), seeds=(0,))
    try:
        with pytest.raises(EngineError, match="was lost with its engine"):
            asyncio.run(engine.compute(work))
    finally:
        engine._served.texts.close()


def test_halves_are_the_whole() -> None:
    calls = tuple(call(TEXTS, prompt=str(number)) for number in range(5))
    one, other = ApiWork(name="w", calls=calls, seeds=(0, 1, 2, 3, 4)).halves()
    assert one.calls + other.calls == calls
    assert one.seeds + other.seeds == (0, 1, 2, 3, 4)
    assert (one.name, other.name, one.num_requests) == ("wa", "wb", 2)
