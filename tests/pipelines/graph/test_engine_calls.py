"""Units in one line before engines that come, die, come back, and take no more."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from pipelines.graph.engine_calls import EngineCalls
from tests.helpers.pipelines.killing import wait_until
from tests.helpers.pipelines.marking_engine import MarkingEngine

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


class Place:
    """Where engines are started, under names that begin alike."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix = folder, f"millrace/{folder.name}/"
        self.actors: list[Any] = []

    def start(self, name: str) -> Any:
        options = {"name": f"{self.prefix}{name}", "num_cpus": 0.5, "max_restarts": -1}
        self.actors.append(ray.remote(MarkingEngine).options(**options).remote(name, self.folder))
        return self.actors[-1]

    def calls(self, *, each: int = 1, permitted: bool = True) -> EngineCalls:
        async def is_permitted() -> bool:
            return permitted

        return EngineCalls(self.prefix, each, is_permitted)

    def go(self) -> None:
        (self.folder / "go").touch()

    def given(self, name: str) -> int:
        """The most units that it had at a time."""
        return len(list(self.folder.glob(f"given-{name}-*")))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for actor in place.actors:
        ray.kill(actor)


async def computed(calls: EngineCalls, *works: bytes) -> list[bytes | None]:
    async with asyncio.timeout(120):
        return list(await asyncio.gather(*map(calls.compute, works)))


def test_every_unit_is_answered_once_by_engines_that_have_no_more_than_they_may(place: Place) -> None:
    place.start("a")
    place.start("b")
    works = [b"%d" % number for number in range(20)]

    async def run() -> list[bytes | None]:
        under_way = asyncio.create_task(computed(place.calls(each=3), *works))
        await asyncio.to_thread(wait_until, lambda: place.given("a") == place.given("b") == 3, "three units each")
        place.go()
        return await under_way

    answers = asyncio.run(run())
    assert [answer and answer.partition(b" ")[0] for answer in answers] == works
    assert (place.given("a"), place.given("b")) == (3, 3)


def test_an_engine_that_comes_later_takes_its_part(place: Place) -> None:
    place.start("a")

    async def run() -> list[bytes | None]:
        under_way = asyncio.create_task(computed(place.calls(), b"1", b"2"))
        await asyncio.to_thread(wait_until, lambda: place.given("a") == 1, "one unit in the first")
        place.start("b")
        await asyncio.to_thread(wait_until, lambda: place.given("b") == 1, "the other in the second")
        place.go()
        return await under_way

    assert sorted(asyncio.run(run()), key=str) == [b"1 by a", b"2 by b"]


def test_the_unit_of_an_engine_that_dies_is_given_to_another(place: Place) -> None:
    place.go()
    place.start("a")
    place.start("b")
    works = [b"poison", *(b"%d" % number for number in range(30))]
    answers = asyncio.run(computed(place.calls(), *works))
    assert [answer and answer.partition(b" ")[0] for answer in answers] == works
    other = {"a": b"b", "b": b"a"}[(place.folder / "poisoned").read_text()]
    assert answers[0] == b"poison by " + other


def test_an_engine_that_dies_alone_gets_its_unit_again_once_it_is_back(place: Place) -> None:
    place.go()
    place.start("a")
    assert asyncio.run(computed(place.calls(), b"poison")) == [b"poison by a"]
    assert (place.folder / "poisoned").exists()


def test_one_that_takes_no_more_and_one_that_is_gone_leave_their_units_to_others(place: Place) -> None:
    place.go()
    retired, gone = place.start("a"), place.start("b")
    ray.get(retired.retire.remote())

    async def run() -> list[bytes | None]:
        calls = place.calls()
        first = await computed(calls, b"1", b"2")
        await asyncio.to_thread(ray.kill, gone)
        later = asyncio.create_task(computed(calls, b"3", b"4"))
        place.start("c")
        return first + await later

    assert asyncio.run(run()) == [b"1 by b", b"2 by b", b"3 by c", b"4 by c"]


def test_a_unit_that_is_not_to_be_begun_is_given_to_none(place: Place) -> None:
    place.start("a")
    assert asyncio.run(computed(place.calls(permitted=False), b"1")) == [None]
    assert place.given("a") == 0


def test_what_an_engine_raises_is_raised_where_its_unit_was_asked_for(place: Place) -> None:
    place.go()
    place.start("a")
    with pytest.raises(TypeError, match="int"):
        asyncio.run(computed(place.calls(), 7))  # type: ignore[arg-type]
