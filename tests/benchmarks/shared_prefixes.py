"""What it saves to compute once what prompts have in common: label scoring, on a small Qwen3 and a
small Zamba2.

    python tests/benchmarks/shared_prefixes.py [--rows 64] [--rounds 3]

Each workload is scored as it is, and with nothing shared, in turns; the ratio of two is that of
their medians. Tokens are those of prompts. What labels take comes on top in both.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from models import Scorer
from models.engine.prefix_tree import PrefixNode
from models.engine.scoring import walk
from tests.helpers.tiny_checkpoints import save_checkpoint

VOCAB_SIZE = 8000
LABELS = [[5], [7, 8], [7, 9, 11], [20, 21]]
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {
        "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6,
        "num_key_value_heads": 3, "head_dim": 64,
    },
    "zamba2": {
        "hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6, "num_key_value_heads": 6, "n_mamba_heads": 12,
        "mamba_d_state": 32,
    },
}  # fmt: skip

Prompts = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Of one way to score a workload: prompt tokens that were computed, and the median of
    seconds."""

    num_tokens: int
    seconds: float


def instructed(rng: np.random.Generator, num_rows: int) -> Prompts:
    """An instruction of 512 tokens, and 64 of each row's own."""
    instruction = tokens(rng, 512)
    return [instruction + tokens(rng, 64) for _ in range(num_rows)]


def questions(rng: np.random.Generator, num_rows: int, each: int = 5) -> Prompts:
    """Documents of 400 tokens, with questions of 20."""
    asked = [tokens(rng, 20) for _ in range(each)]
    return [document + question for document in (tokens(rng, 400) for _ in range(num_rows)) for question in asked]


def repeated(rng: np.random.Generator, num_rows: int) -> Prompts:
    """Prompts of 64 tokens, 40% of them equal to one of the others."""
    different = [tokens(rng, 64) for _ in range(num_rows - 2 * num_rows // 5)]
    again = rng.integers(0, len(different), num_rows - len(different)).tolist()
    return [*different, *(different[index] for index in again)]


def tokens(rng: np.random.Generator, count: int) -> list[int]:
    """Random ones."""
    return [int(token) for token in rng.integers(10, VOCAB_SIZE, count)]


def each_alone(sequences: Sequence[Any], *, max_depth: int | None = None) -> PrefixNode:
    """Nothing in common."""
    del max_depth
    return PrefixNode(leaves=list(range(len(sequences))))


def scored(folder: Path, prompts: Prompts) -> tuple[int, float]:
    """Prompt tokens computed and seconds taken by a scorer that has just been loaded."""
    scorer = Scorer.from_pretrained(folder, device="cpu")
    scorer.score_labels([[3, 4, 5]], LABELS)  # kernels are made at their first use
    started = time.perf_counter()
    scorer.score_labels(prompts, LABELS)
    seconds = time.perf_counter() - started
    return sum(map(len, prompts)) - int(scorer.num_cached.sum()), seconds


def figures(folder: Path, prompts: Prompts, num_rounds: int) -> tuple[Figure, Figure]:
    """Of sharing, and of nothing shared."""
    found: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
    for _ in range(num_rounds):
        found[0].append(scored(folder, prompts))
        with patch.object(walk, "prefix_tree_of", each_alone):
            found[1].append(scored(folder, prompts))
    shared, alone = (
        Figure(num_tokens=each[0][0], seconds=statistics.median(seconds for _, seconds in each)) for each in found
    )
    return shared, alone


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Prints what each workload takes, on each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    workloads: dict[str, Callable[[np.random.Generator], Prompts]] = {
        f"an instruction of 512 tokens, {given.rows} rows of 64": lambda rng: instructed(rng, given.rows),
        "5 questions of 20 tokens over each of 8 documents of 400": lambda rng: questions(rng, 8),
        "40% of 80 prompts equal to others": lambda rng: repeated(rng, 80),
    }
    for family, fields in MODELS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_checkpoint(
                folder, family, "causal", {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 1024, **fields}
            )
            one = scored(folder, questions(np.random.default_rng(0), 8, each=1))[0]
            for title, make in workloads.items():
                prompts = make(np.random.default_rng(0))
                shared, alone = figures(folder, prompts, given.rounds)
                asked = sum(map(len, prompts))
                say(
                    f"{family}, {title}: {shared.num_tokens:,} of {asked:,} prompt tokens computed ({shared.num_tokens / asked:.1%}), "
                    f"{len(prompts) / shared.seconds:.1f} rows/s, {alone.seconds / shared.seconds:.2f} times those with nothing shared"
                )
                if "questions" in title:
                    say(f"    {shared.num_tokens / one:.3f} times the tokens of one question each")


if __name__ == "__main__":
    torch.set_num_threads(1)  # twice as many on a busy machine wait for each other
    main()
