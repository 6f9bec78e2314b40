"""What a shuffled table of three columns shares, next to the same table sorted as a whole: prompt
tokens counted, and rows/s, on small models of random weights in float32, one thread.

    python -m tests.benchmarks.order [--rows 512] [--values 10,5] [--rounds 3] [--of generation,one-pass]

A row's prompt is one of 10 texts of 64 tokens, one of 5 of 64, and 32 tokens of the row's own:
`--values` are these two numbers. Generation writes 8 tokens; its cache holds 72 sequences of which
64 run at once. It is asked in the order of the table, in that order by windows as the engine does
it, and sorted. One-pass work is asked in calls of 256 rows, as units are.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import Engine, SamplingParams, Scorer
from models.engine import scheduler_of
from tests.benchmarks.prefixes import MODELS
from tests.benchmarks.shared_prefixes import LABELS, Prompts, say, tokens

COLUMN, OWN, WRITTEN = 64, 32, 8
UNIT_ROWS, NUM_SEQS, CACHED_SEQS = 256, 64, 72
GREEDY = SamplingParams(max_tokens=WRITTEN, temperature=0.0, ignore_eos=True)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Of a table that was computed: prompt tokens that were not, of all, and seconds."""

    cached: float
    seconds: float


def table(num_rows: int, num_values: tuple[int, int]) -> Prompts:
    """Rows in a random order."""
    rng = np.random.default_rng(0)
    firsts, seconds = ([tokens(rng, COLUMN) for _ in range(number)] for number in num_values)
    return [
        firsts[rng.integers(num_values[0])] + seconds[rng.integers(num_values[1])] + tokens(rng, OWN)
        for _ in range(num_rows)
    ]


def generated(folder: Path, prompts: Prompts, *, window: int) -> Figure:
    """By an engine that has just been loaded, whose windows have `window` rows for each sequence."""
    scheduler_of.BATCH_WINDOW, usual = window, scheduler_of.BATCH_WINDOW
    try:
        engine = Engine.from_pretrained(
            folder, dtype="float32", device="cpu", max_num_seqs=NUM_SEQS, block_size=16, cache_bytes=cache_bytes(folder)
        )
    finally:
        scheduler_of.BATCH_WINDOW = usual
    with engine:
        engine.generate(prompts[:1], GREEDY)
        started = time.process_time()
        outputs = engine.generate(prompts, GREEDY)
        seconds = time.process_time() - started
    num_cached = sum(output.num_cached_tokens for output in outputs)
    return Figure(cached=num_cached / sum(map(len, prompts)), seconds=seconds)


def cache_bytes(folder: Path) -> int:
    """Room for as many sequences."""
    with Engine.from_pretrained(
        folder, dtype="float32", device="cpu", max_num_seqs=1, block_size=16, cache_bytes=1 << 28
    ) as engine:
        memory, pool = engine.memory, engine._scheduler.pool
        return CACHED_SEQS * (2 * COLUMN + OWN + WRITTEN) // 16 * (memory.cache_bytes // pool.num_blocks)


def scored(folder: Path, prompts: Prompts) -> Figure:
    """By a scorer that has just been loaded, a unit a call."""
    scorer = Scorer.from_pretrained(folder, dtype="float32", device="cpu")
    scorer.score_labels([[3, 4, 5]], LABELS)
    num_cached, started = 0, time.process_time()
    for first in range(0, len(prompts), UNIT_ROWS):
        scorer.score_labels(prompts[first : first + UNIT_ROWS], LABELS)
        num_cached += int(scorer.num_cached.sum())
    seconds = time.process_time() - started
    return Figure(cached=num_cached / sum(map(len, prompts)), seconds=seconds)


def ways(folder: Path, prompts: Prompts, of: str) -> dict[str, Callable[[], Figure]]:
    """How a table is computed; the last is what the others are held against."""
    if of == "one-pass":
        return {"as it comes": lambda: scored(folder, prompts), "sorted": lambda: scored(folder, sorted(prompts))}
    return {
        "as it comes": lambda: generated(folder, prompts, window=0),
        "by windows": lambda: generated(folder, prompts, window=scheduler_of.BATCH_WINDOW),
        "sorted": lambda: generated(folder, sorted(prompts), window=0),
    }


def main() -> None:
    """Prints a line for each model, kind of work and order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--values", default="10,5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", default="generation,one-pass")
    parser.add_argument("--models", default=",".join(MODELS))
    given = parser.parse_args()
    first, second = map(int, given.values.split(","))
    prompts = table(given.rows, (first, second))
    for name in given.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            MODELS[name](Path(folder))
            for of in given.of.split(","):
                compare(f"{name}, {of}", ways(Path(folder), prompts, of), given)


def compare(title: str, ways: dict[str, Callable[[], Figure]], given: argparse.Namespace) -> None:
    """The ways in turns; seconds are medians."""
    found: dict[str, list[Figure]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way, compute in ways.items():
            found[way].append(compute())
    best = found["sorted"][0].cached
    for way, figures in found.items():
        seconds = statistics.median(figure.seconds for figure in figures)
        cached = figures[0].cached
        say(
            f"{title}, {way}: {cached:.1%} of prompt tokens cached, {cached / best:.0%} of a global sort's; "
            f"{given.rows / seconds:.1f} rows/s"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
