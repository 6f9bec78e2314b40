"""A job on the replicas of an attacked service: it goes on, and its rows are what the engine alone writes."""

import json
import random
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from jobs.demo import CHECKPOINTS
from models import Engine, SamplingParams
from tests.helpers.jobs.serving import Service
from tests.helpers.pipelines.killing import PATIENCE_S, wait_until
from tests.helpers.pipelines.running import WORDS, rows_in

NUM_ROWS, UNIT_ROWS = 6_000, 50
GREEDY: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0}
_DRAW = random.Random(12)
BODIES = [" ".join(_DRAW.choices(WORDS, k=_DRAW.randint(2, 9))) for _ in range(64)]


class JobBeside:
    """`millrace run` on a service; begun again in another folder when it has come to its end. Nobody waits for it before `finish`."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service, self._folder = service, folder
        self._runs: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> "JobBeside":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, _ in self._runs:
            process.kill()
            process.wait()

    def keep_running(self) -> None:
        """Returns while a job commits units."""
        if not self._runs or self._runs[-1][0].poll() is not None:
            self._start()
        process, folder = self._runs[-1]
        committed = _num_committed(folder)
        wait_until(lambda: _num_committed(folder) > committed or process.poll() is not None, "a unit of the job")

    def finish(self) -> float:
        """Waits for the last job. All have ended with 0 and written every row as it is; the longest time in which nothing was committed."""
        longest = 0.0
        for process, folder in self._runs:
            said = folder.with_suffix(".log").read_text
            assert process.wait(PATIENCE_S) == 0, said()
            found = [(row["id"], row["text"]) for row in rows_in(folder)]
            assert found == [(row, expected()[row % len(BODIES)]) for row in range(NUM_ROWS)]
            longest = max(longest, _longest_pause(folder))
        return longest

    def _start(self) -> None:
        folder = self._folder / f"job-{len(self._runs)}"
        rows = folder.with_suffix(".jsonl")
        bodies = (json.dumps({"id": row, "body": BODIES[row % len(BODIES)]}) for row in range(NUM_ROWS))
        rows.write_text("".join(f"{line}\n" for line in bodies))
        spec = {
            "name": folder.name,
            "model": {"path": str(CHECKPOINTS / "causal"), "dtype": "float32"},
            "task": {"kind": "generate", "prompt": "{{ body }}", "sampling": GREEDY},
            "input": {"paths": [str(rows)], "columns": ["id"]},
            "output": {"path": str(folder), "format": "jsonl"},
            "engine": {"service": "tests"},
            "unit_rows": UNIT_ROWS,
        }
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "jobs", "run", str(path)]
        with folder.with_suffix(".log").open("w") as log:
            self._runs.append((subprocess.Popen(command, env=self._service.env, stdout=log, stderr=log), folder))


@cache
def expected() -> list[str]:
    """What the engine alone writes."""
    with Engine.from_pretrained(CHECKPOINTS / "causal", dtype="float32") as engine:
        return [output.text for output in engine.generate(BODIES, SamplingParams(**GREEDY))]


def _num_committed(folder: Path) -> int:
    receipts = folder / "receipts"
    return len(list(receipts.iterdir())) if receipts.exists() else 0


def _longest_pause(folder: Path) -> float:
    times = sorted(path.stat().st_mtime for path in (folder / "receipts").iterdir())
    return max(later - earlier for earlier, later in pairwise(times))
