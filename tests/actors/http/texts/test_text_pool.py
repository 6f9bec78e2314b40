"""Texts are read in processes that are held to limits, wait for a bounded time, and are given up with whoever asks."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.errors import OverloadedError
from actors.http.errors import ApiError
from actors.http.texts.text_pool import TextPool, check_tokenizer
from actors.http.texts.text_work import encode_texts
from models.errors import TokenizerError
from models.isolation import ProcessLimits
from tests.helpers.actors.text_functions import die, sleep, take_memory
from tests.helpers.pipelines.making import word_tokenizer

LONG_S = 600.0
LIMITS = ProcessLimits(memory_bytes=64 << 20, step_s=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    word_tokenizer(tmp_path)
    return tmp_path


@pytest.fixture
def pool(folder: Path) -> Iterator[TextPool]:
    found = TextPool(folder, limits=LIMITS)
    yield found
    found.close()


@pytest.fixture
def patient(folder: Path) -> Iterator[TextPool]:
    """One that lets work take its time, but has others wait for a moment only."""
    found = TextPool(folder, limits=ProcessLimits(memory_bytes=64 << 20, step_s=LONG_S), max_wait_s=0.2)
    yield found
    found.close()


async def ids_of(pool: TextPool) -> list[list[int]]:
    found = await pool.run("text", encode_texts, ["w1 w2"], True, param="prompt")
    return [ids.tolist() for ids in found]


def test_what_takes_too_long_is_a_bad_request_and_the_next_is_served(pool: TextPool) -> None:
    async def both() -> list[list[int]]:
        with pytest.raises(ApiError, match=r"prompt: the tokenizer of this checkpoint .* more than 1 s") as caught:
            await pool.run("text", sleep, LONG_S, param="prompt")
        assert (caught.value.status, caught.value.body.error.param) == (400, "prompt")
        return await ids_of(pool)

    assert asyncio.run(both()) == [[5, 6]]


def test_what_takes_too_much_memory_is_a_bad_request(pool: TextPool) -> None:
    with pytest.raises(ApiError, match=r"messages: the chat template and the tokenizer .* 64 MiB of memory") as caught:
        asyncio.run(pool.run("template", take_memory, 1 << 30, param="messages"))
    assert caught.value.status == 400


def test_a_process_that_dies_is_our_own_error(pool: TextPool, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ApiError) as caught:
        asyncio.run(pool.run("text", die, param="prompt"))
    assert caught.value.status == 500
    assert "signal 6" in caplog.text


def test_texts_do_not_wait_for_a_template_and_templates_wait_for_a_bounded_time(patient: TextPool) -> None:
    async def beside() -> list[list[int]]:
        rendering = asyncio.ensure_future(patient.run("template", sleep, LONG_S, param="messages"))
        await asyncio.sleep(0)
        found = await ids_of(patient)
        with pytest.raises(OverloadedError):
            await patient.run("template", sleep, 0.0, param="messages")
        assert not rendering.done()
        rendering.cancel()
        await asyncio.wait([rendering])
        return found

    assert asyncio.run(beside()) == [[5, 6]]


def test_work_that_is_cancelled_gives_its_worker_to_the_next(patient: TextPool) -> None:
    async def after() -> str:
        first = asyncio.ensure_future(patient.run("text", sleep, LONG_S, param="prompt"))
        await ids_of_other_lane(patient)  # so that the first one has begun
        first.cancel()
        await asyncio.wait([first])
        return await patient.run("text", sleep, 0.0, param="prompt")

    begun = time.monotonic()
    assert asyncio.run(after()) == "slept"
    assert time.monotonic() - begun < LONG_S / 2


async def ids_of_other_lane(pool: TextPool) -> None:
    await pool.run("template", sleep, 0.0, param="messages")


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "Unheard"}}', '{"version": "1.0", "model": null}'])
def test_a_tokenizer_that_cannot_be_loaded_is_told_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        check_tokenizer(tmp_path)
