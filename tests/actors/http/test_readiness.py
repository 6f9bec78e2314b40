"""Readiness is asked for once, however many ask."""

import asyncio
from collections.abc import Mapping

import pytest

from actors.http.errors import ApiError
from actors.http.readiness import FRESH_S, ReadinessCheck
from models.engine.scheduling.stats import EngineStats

UP = EngineStats()


class Engines:
    """Two models, whose stats come when they are let."""

    def __init__(self) -> None:
        self.num_asked, self.now = 0, 100.0
        self.may_answer = asyncio.Event()
        self.found: Mapping[str, EngineStats | None] = {"secret-a": UP, "secret-b": UP}

    async def stats(self) -> Mapping[str, EngineStats | None]:
        self.num_asked += 1
        await self.may_answer.wait()
        return self.found


def test_many_who_ask_at_once_ask_the_engines_once() -> None:
    async def main() -> None:
        engines = Engines()
        check = ReadinessCheck(engines.stats, clock=lambda: engines.now)
        asking = [asyncio.create_task(check.look(tells_names=False)) for _ in range(100)]
        await asyncio.sleep(0)
        engines.now += 10 * FRESH_S
        asking[0].cancel()
        late = asyncio.create_task(check.look(tells_names=False))
        await asyncio.sleep(0)
        engines.may_answer.set()
        found = await asyncio.gather(*asking[1:], late)
        assert {each.status for each in found} == {"ready"}
        assert engines.num_asked == 1

    asyncio.run(main())


def test_an_answer_is_good_for_a_second() -> None:
    async def main() -> None:
        engines = Engines()
        engines.may_answer.set()
        check = ReadinessCheck(engines.stats, clock=lambda: engines.now)
        await check.look(tells_names=False)
        engines.found = {"secret-a": UP, "secret-b": None}
        engines.now += 0.9 * FRESH_S
        await check.look(tells_names=False)
        assert engines.num_asked == 1
        engines.now += 0.2 * FRESH_S
        with pytest.raises(ApiError):
            await check.look(tells_names=False)
        assert engines.num_asked == 2

    asyncio.run(main())


def test_names_are_for_those_who_may_know() -> None:
    async def main() -> None:
        engines = Engines()
        engines.may_answer.set()
        check = ReadinessCheck(engines.stats, clock=lambda: engines.now)
        assert (await check.look(tells_names=True)).models == ["secret-a", "secret-b"]
        assert "secret" not in (await check.look(tells_names=False)).model_dump_json()
        engines.found = {"secret-a": UP, "secret-b": None}
        engines.now += 2 * FRESH_S
        with pytest.raises(ApiError, match="secret-b"):
            await check.look(tells_names=True)
        with pytest.raises(ApiError) as raised:
            await check.look(tells_names=False)
        assert "secret" not in raised.value.body.model_dump_json()

    asyncio.run(main())
