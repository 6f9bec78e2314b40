"""Real runs for tests: small corpora, jobs on tiny checkpoints, a Ray cluster of their own, and engines that misbehave on purpose."""

import asyncio
import datetime as dt
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.work import EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnePassAnswer, OnFailure
from models import SamplingParams
from pipelines.cluster.ray_output import quiet_ray
from pipelines.graph.engine_actor import MakeEngine, load_engine
from pipelines.io.open_output import open_store
from pipelines.job import EngineSpec, InputSpec, Job, ModelSpec, OutputSpec
from pipelines.ledger.lease import read_lease
from pipelines.ledger.progress import Progress, RunSummary
from pipelines.run import Driver
from pipelines.task_base.task import Task
from pipelines.tasks.generate import GenerateTask

WORDS = (
    "alpha",
    "beta",
    "refund",
    "order",
    "shipping",
    "broken",
    "late",
    "invoice",
    "please",
    "help",
    "thanks",
    "quick",
)
GREEDY = GenerateTask(prompt="{{ body }}", sampling=SamplingParams(max_tokens=6, temperature=0.0))


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path, as the sockets of a Ray cluster need."""
    folder = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_cluster(*, num_cpus: int) -> Iterator[None]:
    """A cluster of this process's own, while the context is open."""
    with short_folder() as folder, quiet_ray() as chatter:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )
        chatter.move_to_session()
        try:
            yield
        finally:
            ray.shutdown()


def write_corpus(path: Path, num_rows: int, *, seed: int = 0, bad: Mapping[int, bytes] | None = None) -> Path:
    """Rows {id, body} as JSONL; `bad` puts other lines in the place of some."""
    draw = random.Random(seed)
    with path.open("wb") as file:
        for row in range(num_rows):
            values = {"id": row, "body": " ".join(draw.choices(WORDS, k=draw.randint(2, 9)))}
            file.write((bad or {}).get(row) or json.dumps(values).encode())
            file.write(b"\n")
    return path


def job_of(task: Task, *, model: Path, corpus: Path, out: Path, **changes: Any) -> Job:
    """A job in float32 whose engines have one thread each, so that all compute alike however many there are."""
    job = Job(
        name="test",
        model=ModelSpec(path=str(model), dtype="float32"),
        task=task,
        input=InputSpec(paths=(str(corpus),)),
        output=OutputSpec(path=str(out), format="jsonl"),
        engine=EngineSpec(num_cpus=1, max_num_seqs=16),
    )
    return replace(job, **changes)


def drive(
    job: Job,
    *,
    make_engine: MakeEngine = load_engine,
    seen: list[Progress] | None = None,
    today: dt.date | None = None,
) -> RunSummary:
    """A run on the cluster that this process is connected to."""
    show = (lambda progress: None) if seen is None else seen.append
    return Driver(job, show=show, make_engine=make_engine, today=today).run(None)


def contents(out: Path) -> dict[str, bytes]:
    """The results and dead letters of a run, byte for byte, by unit: whatever the names that receipts give them."""
    found = {}
    for path in (out / "receipts").iterdir():
        receipt = json.loads(path.read_bytes())
        for folder in ("data", "errors"):
            found[f"{folder}/{receipt['unit']}"] = (out / receipt[folder]["name"]).read_bytes()
    listed = out / "errors/units.jsonl"
    return found | ({"errors/units.jsonl": listed.read_bytes()} if listed.exists() else {})


def rows_in(out: Path, folder: str = "data") -> list[dict[str, Any]]:
    """All rows of a run's results, or its dead letters, in input order."""
    paths = sorted(path for path in (out / folder).glob("part-*"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def receipts(out: Path) -> dict[str, tuple[int, int]]:
    """Which receipts there are, and what changes if one is written again: its inode and time."""
    found = [(path.name, path.stat()) for path in (out / "receipts").iterdir()]
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found}


# Engines that need no model. Ray makes them in its workers, so each is a function of this module.


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
