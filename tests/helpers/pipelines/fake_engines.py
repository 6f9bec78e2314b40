"""Engines without a model, some of which misbehave on purpose. Ray makes them in processes of its own, so each is a function of this
module, and this module imports little: its imports are part of what every run of a test costs.
"""

import asyncio
import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from actors.work import EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnePassAnswer, OnFailure
from pipelines.io.open_output import open_store
from pipelines.job import OutputSpec
from pipelines.ledger.lease import read_lease


class FakeEngine:
    """Answers each request with two logits made from its tokens alone."""

    memory = None

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        await asyncio.sleep(0)
        on_answered(work.num_requests)
        return [OnePassAnswer(values=logits(token_ids)) for token_ids in work.requests()]


def logits(token_ids: list[int]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    digest = hashlib.sha256(bytes(str(token_ids), "ascii")).digest()
    return np.frombuffer(digest[:2], np.uint8).astype(np.float32) / np.float32(64)


def fake_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return FakeEngine()


class _Patient(FakeEngine):
    """Answers ten units at once, and every other when the run in `out` starts no new ones, or after half a minute."""

    def __init__(self, out: Path) -> None:
        self._store, self._calls = open_store(OutputSpec(path=str(out))), 0

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        self._calls += 1
        end = time.monotonic() + 30
        while self._calls > 10 and time.monotonic() < end:
            lease = read_lease(self._store)
            if lease is not None and lease.is_draining:
                break
            await asyncio.sleep(0.1)
        return await super().compute(work, on_answered)


def patient_engine(out: Path, settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Patient(out)


def unloadable_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    raise RuntimeError(f"no room for the weights of {Path(settings.path).name}")


def engine_that_dies_loading(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class _Slow(FakeEngine):
    """Takes a twentieth of a second for every row."""

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        await asyncio.sleep(0.05 * work.num_requests)
        return await super().compute(work, on_answered)


def slow_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Slow()


class _Failing(FakeEngine):
    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        del on_answered
        raise RuntimeError(f"out of memory at {work.name}")


def failing_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Failing()


class _Tripping(FakeEngine):
    """Fails on texts of more than 100 tokens, whatever else is computed with them."""

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        assert work.lengths.max() <= 100
        return await super().compute(work, on_answered)


def tripping_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Tripping()


class _Helpless(FakeEngine):
    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        del on_answered
        raise TypeError("not prepared for anything")


def helpless_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Helpless()


class _Killed(FakeEngine):
    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def killed_engine(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _Killed()


class _DyingOnce(FakeEngine):
    """Is killed at its third call, unless an engine before it was, which left its mark."""

    def __init__(self, mark: Path) -> None:
        self._mark, self._calls = mark, 0

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        self._calls += 1
        if self._calls == 3 and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().compute(work, on_answered)


def engine_that_dies_once(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    return _DyingOnce(Path(settings.path) / "an-engine-died")


def engine_that_cannot_come_back(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    if (Path(settings.path) / "an-engine-died").exists():
        raise RuntimeError("the weights are gone")
    return engine_that_dies_once(settings, on_failure)


class _ByModel(FakeEngine):
    """Answers by its tokens, another model otherwise: with a label's log probabilities, or two classes."""

    def __init__(self, settings: EngineSettings) -> None:
        self._salt = len(settings.path)
        self._refuses = (Path(settings.path) / "refuses").exists()

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        assert not self._refuses, "there is nothing left for this model"
        answers = await super().compute(work, on_answered)
        return [
            OnePassAnswer(values=-np.roll(answer.values, self._salt)) if isinstance(answer, OnePassAnswer) else answer
            for answer in answers
        ]


def engine_by_model(settings: EngineSettings, on_failure: OnFailure) -> _ByModel:
    del on_failure
    return _ByModel(settings)


class _WithoutTrial(FakeEngine):
    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        assert not work.name.startswith("trial"), "what a run was told before all rows is in its record"
        return await super().compute(work, on_answered)


def engine_without_trial(settings: EngineSettings, on_failure: OnFailure) -> FakeEngine:
    del settings, on_failure
    return _WithoutTrial()


class Signing(FakeEngine):
    """Signs for every unit that it answers, and for how many it held at a time. It answers none before `patience` are answered."""

    def __init__(self, folder: Path, patience: int) -> None:
        self._folder, self._patience, self._held = folder, patience, 0
        (folder / f"started-{os.getpid()}").touch()

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        self._held += 1
        (self._folder / f"held-{self._held}").touch()
        await asyncio.sleep(0.05)
        while len(list(self._folder.glob("answered-*"))) < self._patience:
            await asyncio.sleep(0.05)
        self._held -= 1
        (self._folder / f"answered-{os.getpid()}-{work.name.replace('/', '-')}").touch()
        return await super().compute(work, on_answered)


def signing_engine(settings: EngineSettings, on_failure: OnFailure) -> Signing:
    del on_failure
    return Signing(Path(settings.path), 0)


def one_slow_engine(settings: EngineSettings, on_failure: OnFailure, *, patience: int) -> Signing:
    """The first to come is slow: it waits until the others have answered so many units."""
    try:
        with (Path(settings.path) / "slow").open("x") as mark:
            mark.write(str(os.getpid()))
    except FileExistsError:
        return signing_engine(settings, on_failure)
    return Signing(Path(settings.path), patience)


NUM_FIRST = 30
_HALFWAY_S = 120.0


class _Halfway(FakeEngine):
    """Says that it has answered `NUM_FIRST` requests, and dies of it once that is `seen`. The one after it says nothing until it is
    seen that these are `lost`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def compute(self, work: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        if not (self._folder / "seen").exists():
            on_answered(NUM_FIRST)
            await self._until("seen")
            os.kill(os.getpid(), signal.SIGKILL)
        await self._until("lost")
        return await super().compute(work, on_answered)

    async def _until(self, mark: str) -> None:
        async with asyncio.timeout(_HALFWAY_S):
            while not (self._folder / mark).exists():
                await asyncio.sleep(0.05)


def halfway_engine(settings: EngineSettings, on_failure: OnFailure) -> _Halfway:
    del on_failure
    return _Halfway(Path(settings.path))
