"""What `millrace plan` says a job takes against what it takes: `python -m tests.benchmarks.plan_time MODEL [--jobs NAME ...]`.

MODEL is a causal checkpoint with a chat template, such as `tests.benchmarks.labelling.checkpoint` writes. Each job is planned and then
run, in processes of their own, one right after the other: both want the same load on the machine, which is printed before and after.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.benchmarks.labelling.texts import plain_texts
from tests.benchmarks.unit_overhead import say
from tests.helpers.pipelines.running import short_folder

TREE: Final = Path(__file__).parents[2]
LABELS: Final = ["sports", "cooking", "travel", "music", "technology"]
RULE: Final = "Rule {}: read the text with care, and name the topic that most of it is about."
INSTRUCTION: Final = " ".join(RULE.format(number) for number in range(1, 26))

JOBS: Final[Mapping[str, tuple[int, Mapping[str, Any]]]] = {
    "built-in": (1000, {"kind": "classify", "text": "{{ body }}", "labels": LABELS}),
    "instruction": (1000, {"kind": "classify", "prompt": INSTRUCTION + "\n\n{{ body }}\nTopic:", "labels": LABELS}),
    "nothing": (1000, {"kind": "classify", "prompt": "{{ body }}\nTopic:", "labels": LABELS}),
    "short": (
        300,
        {"kind": "generate", "prompt": "{{ body }}\nTopic:", "sampling": {"max_tokens": 8, "temperature": 0.0}},
    ),
    "long": (60, {"kind": "generate", "prompt": "{{ body }}\n", "sampling": {"max_tokens": 96, "temperature": 0.0}}),
}
"""Rows, and the task."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    say("job          planned   taken   planned/taken   load before, after")
    with tempfile.TemporaryDirectory() as name, short_folder() as temp:
        folder = Path(name)
        rows = (json.dumps(row) + "\n" for row in plain_texts())
        (folder / "plain.jsonl").write_text("".join(rows))
        for number in range(options.times):
            for job in options.jobs:
                compare(job, folder, options.model.resolve(), temp, number)


def compare(name: str, folder: Path, model: Path, temp: Path, number: int) -> None:
    """Plans and runs one job, and prints a line."""
    limit, task = JOBS[name]
    values = {
        "name": name,
        "model": {"path": str(model), "dtype": "float32"},
        "task": task,
        "input": {"paths": [str(folder / "plain.jsonl")]},
        "output": {"path": str(folder / f"{name}-{number}"), "format": "jsonl"},
    }
    spec = folder / f"{name}-{number}.yaml"
    spec.write_text(yaml.safe_dump(values))
    load = os.getloadavg()[0]
    planned = seconds_in(millrace("plan", spec, temp, limit))
    started = time.perf_counter()
    millrace("run", spec, temp, limit)
    taken = time.perf_counter() - started
    say(f"{name:<12} {planned:6.0f} s {taken:6.0f} s {planned / taken:15.2f}   {load:.1f}, {os.getloadavg()[0]:.1f}")


def millrace(command: str, spec: Path, temp: Path, limit: int) -> str:
    """What a command prints."""
    environment = {**os.environ, "PYTHONPATH": str(TREE), "RAY_TMPDIR": str(temp)}
    found = subprocess.run(
        [sys.executable, "-m", "jobs", command, str(spec), "--limit", str(limit)],
        cwd=TREE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        sys.exit(f"millrace {command} ended with {found.returncode}: {found.stderr[-2000:]}")
    return found.stdout


def seconds_in(page: str) -> float:
    """The time that a page of `millrace plan` says."""
    line = next(line for line in page.splitlines() if re.match(r"  time +\d", line))
    words = line.partition(" with ")[0]
    units = {"h": 3600, "min": 60, "s": 1}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+) (h|min|s)\b", words))


if __name__ == "__main__":
    main()
