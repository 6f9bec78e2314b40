"""From `millrace run` to its first committed unit: `python -m tests.benchmarks.first_commit [--times 5] [--against FOLDER]`.

Each time a run of its own process and its own cluster, over a tiny checkpoint and a small corpus, which is interrupted once its
first unit is committed. When what happened is seen from outside, in the run's log and its output folder, so that any version of the
code can be measured: `--against` names the folder of another checkout, and the two then take turns.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from tests.benchmarks.unit_overhead import make_classifier, say
from tests.helpers.pipelines.running import short_folder, write_corpus

LOOK_S: Final = 0.005
PATIENCE_S: Final = 240.0
SPEC, OPENED, RAY, LEASE, PLAN, ENGINE, READY, COMMIT, END = (
    "the spec is read",
    "the job is opened",
    "Ray is up",
    "the lease is taken",
    "the input is planned",
    "an engine's process is up",
    "an engine is loaded",
    "the first unit is committed",
    "the run has ended (after Ctrl-C)",
)
LINES: Final = {"jobs.commands.run: read": SPEC, "planning the input": OPENED, "started a Ray cluster": RAY}
"""Parts of lines that a run writes with MILLRACE_LOG=info."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A spec, where it writes, and where Ray keeps its files."""

    spec: Path
    out: Path
    temp: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--against", type=Path, help="another checkout of this code, to take turns with")
    options = parser.parse_args()
    trees = [Path(__file__).parents[2], *([options.against.resolve()] if options.against else [])]
    found: dict[Path, list[Mapping[str, float]]] = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory() as name, short_folder() as temp:
        folder = Path(name)
        make_classifier(folder / "model")
        write_corpus(folder / "rows.jsonl", options.rows)
        for number in range(options.times):
            for tree in trees if number % 2 else reversed(trees):
                job = job_in(folder, f"out-{number}-{trees.index(tree)}", temp)
                found[tree].append(timed(tree, job))
                say(f"{tree}: first commit after {found[tree][-1][COMMIT]:.2f} s")
    for tree in trees:
        say(f"\n{tree}: median (least to most) of {options.times} runs, in seconds; load {os.getloadavg()[0]:.1f}")
        report(found[tree])
    if options.against:
        ours, theirs = (statistics.median(marks[COMMIT] for marks in found[tree]) for tree in trees)
        say(f"\nfirst commit: {ours:.2f} s here, {theirs:.2f} s there: {ours / theirs:.2f} of it")


def job_in(folder: Path, name: str, temp: Path) -> Job:
    """A job that classifies the rows in `folder` by the checkpoint there."""
    values: dict[str, Any] = {
        "name": "first",
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [str(folder / "rows.jsonl")]},
        "output": {"path": str(folder / name), "format": "jsonl"},
        "unit_rows": 16,
    }
    spec = folder / f"{name}.yaml"
    spec.write_text(yaml.safe_dump(values))
    return Job(spec=spec, out=folder / name, temp=temp)


def timed(tree: Path, job: Job) -> Mapping[str, float]:
    """When what happened, in seconds after the process was started."""
    marks: dict[str, float] = {}
    environment = {**os.environ, "PYTHONPATH": str(tree), "RAY_TMPDIR": str(job.temp), "MILLRACE_LOG": "info"}
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", "run", str(job.spec)],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        lines: list[str] = []
        listener = threading.Thread(target=listen, args=(run, lines, marks, started))
        listener.start()
        while COMMIT not in marks and run.poll() is None and time.perf_counter() - started < PATIENCE_S:
            now = time.perf_counter() - started
            marks.update({mark: now for mark in seen_in(job.out, marks) if mark not in marks})
            time.sleep(LOOK_S)
        run.send_signal(signal.SIGINT)
        run.wait()
        marks[END] = time.perf_counter() - started
        listener.join()
    assert COMMIT in marks, "".join(lines)
    return marks


def listen(run: "subprocess.Popen[str]", lines: list[str], marks: dict[str, float], started: float) -> None:
    """Reads what a run says until it ends."""
    assert run.stderr is not None
    for line in run.stderr:
        lines.append(line)
        now = time.perf_counter() - started
        marks.update({mark: now for text, mark in LINES.items() if text in line and mark not in marks})


def seen_in(out: Path, marks: Mapping[str, float]) -> Sequence[str]:
    """What an output folder tells of a run."""
    seen = [mark for name, mark in (("lease.json", LEASE), ("run.json", PLAN)) if (out / name).exists()]
    if READY not in marks:
        for attempt in (out / "attempts").glob("engine-*.json"):
            seen.append(ENGINE)
            if is_ready(attempt):
                seen.append(READY)
    if READY in marks and any((out / "receipts").glob("*")):
        seen.append(COMMIT)
    return seen


def is_ready(attempt: Path) -> bool:
    """Whether the journal of an engine's start says that it has loaded."""
    try:
        return bool(orjson.loads(attempt.read_bytes())["is_ready"])
    except (OSError, ValueError):  # just being written
        return False


def report(runs: Sequence[Mapping[str, float]]) -> None:
    """Prints when each mark was reached that every run has, in the order of the medians, and how long after the one before."""
    names = set[str].intersection(*(set(run) for run in runs))
    medians = sorted((statistics.median(run[name] for run in runs), name) for name in names)
    before = 0.0
    for median, name in medians:
        times = [run[name] for run in runs]
        say(f"  {median:6.2f}  +{median - before:5.2f}  ({min(times):5.2f} to {max(times):5.2f})  {name}")
        before = median


if __name__ == "__main__":
    main()
