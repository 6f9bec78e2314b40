"""What a shuffled table of three columns shares, next to the same table sorted as a whole: prompt
tokens counted, and rows/s, on small models of random weights in float32, one thread.

    python -m tests.benchmarks.order [--rows 512] [--values 10,5] [--rounds 3] [--of generation,one-pass]

A row's prompt is one of 10 texts of 64 tokens, one of 5 of 64, and 32 tokens of the row's own:
`--values` are these two numbers. Generation writes 8 tokens; its cache holds 72 sequences of which
64 run at once. It is asked in the order of the table, in that order by windows as the engine does
it, and sorted. One-pass work is asked in calls of 256 rows, as units are. With `--counts` a
scheduler alone counts 1,024 rows that come in units of 64, for tables of several sizes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from models import Engine, SamplingParams, Scorer
from models.engine.options import BATCH_WINDOW
from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.plan import StepPlan
from models.engine.scheduling.scheduler import Scheduler, StepResult
from models.engine.scheduling.sequence import Sequence
from tests.benchmarks.prefixes import MODELS
from tests.benchmarks.shared_prefixes import LABELS, Prompts, say, tokens
from tests.helpers.models.engine_reading import Driver, add

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
    with patch("models.engine.scheduler_of.BATCH_WINDOW", window):
        engine = Engine.from_pretrained(
            folder, dtype="float32", device="cpu", max_num_seqs=NUM_SEQS, block_size=16, cache_bytes=cache_bytes(folder)
        )
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


class Writer:
    """Writes the same token always."""

    def execute(self, plan: StepPlan) -> StepResult:
        return StepResult(tokens=[[7] for is_sampling in plan.is_sampling if is_sampling])


def counted(prompts: Prompts, *, window: int) -> int:
    """Prompt tokens that a scheduler finds in the cache, given as many units as a run gives."""
    scheduler = Scheduler(
        BlockPool(CACHED_SEQS * (2 * COLUMN + OWN + WRITTEN) // 16, 16, min_density=0.6),
        max_num_seqs=NUM_SEQS,
        max_num_batched_tokens=2048,
        max_model_len=512,
        batch_window=max(1, window * NUM_SEQS),
    )
    driver = Driver(scheduler, Writer())
    units = [prompts[first : first + NUM_SEQS] for first in range(0, len(prompts), NUM_SEQS)]
    live: list[list[Sequence]] = []
    while units or scheduler.has_work:
        live = [unit for unit in live if not all(sequence.is_finished for sequence in unit)]
        while units and len(live) < BATCH_WINDOW + 3:
            live.append([add(driver, prompt, max_tokens=WRITTEN) for prompt in units.pop(0)])
        driver.step()
    return scheduler.lanes["batch"].num_cached_tokens


def count() -> None:
    """Prints a line a table."""
    for num_values in ((10, 5), (10, 20), (10, 60)):
        prompts = table(1024, num_values)
        best = counted(sorted(prompts), window=0)
        came, windows = (counted(prompts, window=window) / best for window in (0, BATCH_WINDOW))
        say(f"{num_values} values: of a global sort's share {came:.0%} as rows come, {windows:.0%} by windows")


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
        "by windows": lambda: generated(folder, prompts, window=BATCH_WINDOW),
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
    parser.add_argument("--counts", action="store_true")
    given = parser.parse_args()
    if given.counts:
        count()
        return
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
