"""What one unit costs before anything is computed: `python -m tests.benchmarks.unit_overhead [--units 1000] [--rows 4]`.

A whole run on a cluster of its own: real reading, preparing, finishing and committing of small units, with an engine that answers at once.
Prints units/s from the first committed unit to the last, and the CPU time of the driver and of all its processes for one unit.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.ledger.progress import Progress
from pipelines.run import Driver
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.fake_engines import fake_engine
from tests.helpers.pipelines.running import job_of, write_corpus


class Clock:
    """When the first unit and the last were committed, and the driver's CPU time between them."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first: tuple[float, float, int] | None = None
        self.last: tuple[float, float, int] | None = None

    def __call__(self, progress: Progress) -> None:
        now = (time.perf_counter(), time.process_time(), progress.units_done)
        if progress.units_done and self.first is None:
            self.first = now
        self.last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=4, help="rows of a unit")
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_classifier(folder / "model")
        corpus = write_corpus(folder / "rows.jsonl", options.units * options.rows)
        job = job_of(
            ClassifyTask(text="{{ body }}"),
            model=folder / "model",
            corpus=corpus,
            out=folder / "out",
            unit_rows=options.rows,
        )
        clock = Clock()
        summary = Driver(job, show=clock, make_engine=fake_engine).run("local")
        report(clock, summary.exit_status, options.rows)


def make_classifier(folder: Path) -> None:
    """A tiny checkpoint, made in a process of its own: the driver that is measured imports no torch."""
    code = (
        "import sys, pathlib; from tests.helpers.tiny_checkpoints import save_with_tokenizer as save; "
        "save(pathlib.Path(sys.argv[1]), 'qwen3', 'sequence-classification', {})"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, stderr=subprocess.DEVNULL)


def say(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(clock: Clock, exit_status: int, rows: int) -> None:
    """Prints the figures."""
    assert clock.first is not None
    assert clock.last is not None
    seconds, cpu_s, units = (last - first for first, last in zip(clock.first, clock.last, strict=True))
    say(f"exit status {exit_status}; {units} units of {rows} rows in {seconds:.1f} s: {units / seconds:.1f} units/s")
    say(f"driver: {1000 * cpu_s / units:.1f} ms of CPU time a unit; load average {os.getloadavg()[0]:.1f}")
    say(f"first committed unit after {clock.first[0] - clock.started:.1f} s")


if __name__ == "__main__":
    main()
