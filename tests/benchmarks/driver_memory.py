"""Does the driver's memory grow with the corpus? `python -m tests.benchmarks.driver_memory [--plan 2000000] [--classify 200000]`.

Plans one corpus of short JSONL rows and classifies the first rows of it with a real engine on a tiny checkpoint. Prints the resident memory
of the driver's process over time, by phase.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipelines.ledger.progress import Progress
from pipelines.run import run
from pipelines.tasks.classify import ClassifyTask
from tests.benchmarks.unit_overhead import make_classifier, say
from tests.helpers.pipelines.running import job_of


def write_rows(path: Path, num_rows: int) -> Path:
    """Short rows, all different."""
    with path.open("w") as file:
        for row in range(num_rows):
            file.write(json.dumps({"id": row, "body": f"order {row} is late"}) + "\n")
    return path


def resident_mb() -> float:
    """Resident memory of this process that is its own, not shared: the object store's pages are mapped, but not the driver's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


class Samples:
    """Memory once a second, with what the run was doing."""

    def __init__(self) -> None:
        self.phase, self.rows = "start", 0
        self._done = threading.Event()
        self._started = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        self.phase, self.rows = progress.phase, progress.rows_done

    @contextmanager
    def sampling(self, every_s: float) -> Iterator[None]:
        thread = threading.Thread(target=self._sample, args=(every_s,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            self.print()

    def _sample(self, every_s: float) -> None:
        while not self._done.wait(every_s):
            self.print()

    def print(self) -> None:
        seconds = time.monotonic() - self._started
        say(f"{seconds:6.0f} s  {self.phase:9} {self.rows:>9,} rows  {resident_mb():7.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", type=int, default=2_000_000)
    parser.add_argument("--classify", type=int, default=200_000)
    parser.add_argument("--unit-rows", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_classifier(folder / "model")
        corpus = write_rows(folder / "rows.jsonl", options.plan)
        say(f"corpus: {options.plan:,} rows, {corpus.stat().st_size / 1e6:.0f} MB")
        for limit in (options.plan, options.classify):
            job = job_of(
                ClassifyTask(text="{{ body }}"),
                model=folder / "model",
                corpus=corpus,
                out=folder / f"out-{limit}",
                unit_rows=options.unit_rows,
                limit=limit,
            )
            samples = Samples()
            show = samples if limit == options.classify else partial(until_engines_start, samples)
            with samples.sampling(2.0):
                summary = run(job, address="local", on_progress=show)
            say(f"exit status {summary.exit_status}: {summary.message}")


def until_engines_start(samples: Samples, progress: Progress) -> None:
    """Passes progress on, and interrupts the run once it is planned."""
    samples(progress)
    if progress.phase == "starting":
        raise KeyboardInterrupt


if __name__ == "__main__":
    main()
