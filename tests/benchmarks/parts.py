"""What it saves to have the parts of a prompt ordered: a shuffled table of three columns, its parts in
the worst order, as they are given and as a run orders them, also with the table sorted, on small models of random weights in
float32, one thread.

    python -m tests.benchmarks.parts [--rows 512] [--rounds 3] [--models Qwen3,Zamba2]

A row has one of 10 shops of 64 characters, one of 5 products of 64, and a review of 32 of its own; a
character is a token. Rows are rendered by the job's templates in units of 256. One-pass work scores
four labels, a unit a call; generation writes 8 tokens with 64 sequences at once, a unit a call, in a
cache with room for 72. Seconds are those that this process computed.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch

from models import Engine, SamplingParams, Scorer
from pipelines.job import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.parts.settle import PartsOrder, settle_parts
from pipelines.parts.template import with_parts
from pipelines.tasks.generate import GenerateTask
from pipelines.templates.templates import RowTemplate
from pipelines.units.listing import find_sources
from tests.benchmarks.prefixes import MODELS
from tests.benchmarks.shared_prefixes import LABELS, Prompts, say

COLUMNS = {"shop": (64, 10), "product": (64, 5)}
REVIEW, WRITTEN = 32, 8
UNIT_ROWS, NUM_SEQS, CACHED_SEQS, BLOCK = 256, 64, 72, 16
WORST = ("Review: {{ review }}", "Shop: {{ shop }}", "Product: {{ product }}")
PROMPT = "{{ parts }}\nTopic:"
GREEDY = SamplingParams(max_tokens=WRITTEN, temperature=0.0, ignore_eos=True)

Computed = tuple[float, float]
"""The share of prompt tokens that were not computed, and seconds."""


def table(num_rows: int) -> list[dict[str, str]]:
    """Rows in a random order."""
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choices(ascii_lowercase, k=length))

    values = {name: [text(length) for _ in range(number)] for name, (length, number) in COLUMNS.items()}
    return [
        {name: draw.choice(each) for name, each in values.items()} | {"review": text(REVIEW)} for _ in range(num_rows)
    ]


def settled(rows: list[dict[str, str]], folder: Path) -> tuple[Job, PartsOrder, float]:
    """A job over the table as a run opens it, and the seconds that its order took."""
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = Job(
        name="parts",
        model=ModelSpec(path="none"),
        task=GenerateTask(prompt=PROMPT),
        input=InputSpec(paths=(str(folder / "in.jsonl"),)),
        output=OutputSpec(path=str(folder / "out")),
        parts=WORST,
    )
    began = time.perf_counter()
    found = settle_parts(job, lambda: find_sources(job.input))
    assert found.parts is not None
    return found.job, found.parts, time.perf_counter() - began


def prompts(template: str, rows: list[dict[str, str]]) -> Prompts:
    """The rows' prompts, a token a character."""
    made = RowTemplate(template, place="task.prompt")
    return [[10 + ord(character) for character in made.render(row)] for row in rows]


def units(asked: Prompts) -> Iterator[Prompts]:
    """The prompts, a unit at a time."""
    return (asked[first : first + UNIT_ROWS] for first in range(0, len(asked), UNIT_ROWS))


def scored(folder: Path, asked: Prompts) -> Computed:
    """By a scorer that has just been loaded."""
    scorer = Scorer.from_pretrained(folder, dtype="float32", device="cpu")
    scorer.score_labels([[3, 4, 5]], LABELS)
    num_cached, began = 0, time.process_time()
    for unit in units(asked):
        scorer.score_labels(unit, LABELS)
        num_cached += int(scorer.num_cached.sum())
    return num_cached / sum(map(len, asked)), time.process_time() - began


def generated(folder: Path, asked: Prompts) -> Computed:
    """By an engine that has just been loaded."""
    settings: Any = {"dtype": "float32", "device": "cpu", "block_size": BLOCK}
    with Engine.from_pretrained(folder, **settings, max_num_seqs=1, cache_bytes=1 << 28) as engine:
        block_bytes = engine.memory.cache_bytes // engine._scheduler.pool.num_blocks
    cache_bytes = CACHED_SEQS * -(-(len(asked[0]) + WRITTEN) // BLOCK) * block_bytes
    with Engine.from_pretrained(folder, **settings, max_num_seqs=NUM_SEQS, cache_bytes=cache_bytes) as engine:
        engine.generate([[3, 4, 5]], GREEDY)
        num_cached, began = 0, time.process_time()
        for unit in units(asked):
            num_cached += sum(output.num_cached_tokens for output in engine.generate(unit, GREEDY))
        return num_cached / sum(map(len, asked)), time.process_time() - began


WORK: dict[str, Callable[[Path, Prompts], Computed]] = {"labels": scored, "generation": generated}


def main() -> None:
    """Prints the order, and a line for each model, kind of work and order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default=",".join(MODELS))
    given = parser.parse_args()
    rows = table(given.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job, parts, seconds = settled(rows, folder)
        assert parts.shared is not None
        say(f"order {parts.order} found in {seconds:.2f} s on {parts.shared.num_rows} rows: predicted {parts.shared}")
        (ordered,) = (text for _, text in job.task.templates())
        given_prompts, prompts_in_order = (prompts(text, rows) for text in (with_parts(PROMPT, WORST), ordered))
        ways = {"as given": given_prompts, "ordered": prompts_in_order, "ordered and sorted": sorted(prompts_in_order)}
        for model in given.models.split(","):
            torch.manual_seed(0)
            MODELS[model](folder / model)
            for kind, compute in WORK.items():
                figures: dict[str, list[Computed]] = {way: [] for way in ways}
                for _ in range(given.rounds):
                    for way, asked in ways.items():
                        figures[way].append(compute(folder / model, asked))
                for way, found in figures.items():
                    speed = given.rows / statistics.median(seconds for _, seconds in found)
                    say(f"{model}, {kind}, {way}: {found[0][0]:.1%} of prompt tokens cached, {speed:.1f} rows/s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
