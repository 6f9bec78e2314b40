"""Real runs for tests: small corpora, jobs on tiny checkpoints, a Ray cluster of their own, and engines that misbehave on purpose."""

import datetime as dt
import json
import logging
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from models import SamplingParams
from pipelines.cluster.ray_output import quiet_ray
from pipelines.graph.engine_actor import MakeEngine, load_engine
from pipelines.job import EngineSpec, InputSpec, Job, ModelSpec, OutputSpec
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


KEPT_WORKERS = {"num_workers_soft_limit": 6, "idle_worker_killing_time_threshold_ms": 600_000}
"""Settings of Ray for a cluster on which run follows run: workers that one leaves idle, with all that they have imported, are there for
the next. Ray ends what is over one a CPU within a second, and a run starts half a dozen then."""


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
            _system_config=KEPT_WORKERS,
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
