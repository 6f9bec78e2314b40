"""What several questions about a document cost a job, against one question and against each asked alone.

    python -m tests.benchmarks.several_questions [--rows 64] [--questions 5]

Whole runs on a cluster of its own, over documents of about 400 tokens, with a small Qwen3 in float32. Tokens are those of prompts,
computed and asked for, as the run counts them.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.run import Driver
from pipelines.task_base.task import Task
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.several.task import SeveralTask
from tests.helpers.pipelines.running import job_of, rows_in
from tests.helpers.tiny_checkpoints import save_with_tokenizer

MODEL: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 64, "max_position_embeddings": 1024,
}  # fmt: skip
DOCUMENT_CHARS = 400
LABELS = ("billing", "shipping", "returns")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run asked for and computed, in prompt tokens, and its results."""

    num_asked: int
    num_computed: int
    rows: list[dict[str, Any]]


class Workload:
    """Documents, and the model that is asked about them."""

    def __init__(self, folder: Path, num_rows: int) -> None:
        self._folder = folder
        save_with_tokenizer(folder / "model", "qwen3", "causal", MODEL)
        rng, letters = np.random.default_rng(0), np.array(list("abcdefghijklmnopqrstuvwxyz     "))
        bodies = ["".join(rng.choice(letters, DOCUMENT_CHARS)) for _ in range(num_rows)]
        self._corpus = folder / "rows.jsonl"
        self._corpus.write_text(
            "".join(json.dumps({"id": row, "body": body}) + "\n" for row, body in enumerate(bodies))
        )

    def run(self, name: str, task: Task) -> Ran:
        """One whole run of `task`."""
        job = job_of(task, model=self._folder / "model", corpus=self._corpus, out=self._folder / name, unit_rows=16)
        summary = Driver(job, show=lambda _: None).run("local")
        assert summary.exit_status == 0, summary
        done = summary.progress
        return Ran(
            num_asked=done.prompt_tokens,
            num_computed=done.prompt_tokens - done.cached_tokens,
            rows=rows_in(self._folder / name),
        )


def main() -> None:
    """Prints the tokens of one question, of all in one run, and how far the answers are from those asked one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--questions", type=int, default=5)
    given = parser.parse_args()
    tasks = {
        f"q{number}": LabelsTask(text="{{ body }}", question=f"Which is {number}?", labels=LABELS)
        for number in range(given.questions)
    }
    with tempfile.TemporaryDirectory() as name:
        workload = Workload(Path(name), given.rows)
        together = workload.run("together", SeveralTask(tasks=tasks))
        alone = {key: workload.run(key, task) for key, task in tasks.items()}
    one = next(iter(alone.values()))
    num_equal, furthest = compared(together, alone)
    num_alone = sum(each.num_computed for each in alone.values())
    ratio = together.num_computed / one.num_computed
    lines = [
        f"one question: {one.num_computed:,} of {one.num_asked:,} prompt tokens computed, {one.num_asked / given.rows:.0f} asked a row",
        f"{given.questions} questions in one run: {together.num_computed:,} of {together.num_asked:,}, {ratio:.3f} times those of one",
        f"asked one by one: {num_alone:,}, {num_alone / one.num_computed:.3f} times",
        f"labels equal: {num_equal:,} of {given.rows * given.questions:,}; scores at most {furthest:.1e} apart",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def compared(together: Ran, alone: dict[str, Ran]) -> tuple[int, float]:
    """How many labels of all rows and questions are equal, and how far scores are apart at most."""
    num_equal, furthest = 0, 0.0
    for name, ran in alone.items():
        for mine, theirs in zip(together.rows, ran.rows, strict=True):
            num_equal += mine[f"{name}_label"] == theirs["label"]
            ours, others = dict(mine[f"{name}_scores"]), dict(theirs["scores"])
            furthest = max(furthest, *(abs(ours[label] - others[label]) for label in LABELS))
    return num_equal, furthest


if __name__ == "__main__":
    main()
