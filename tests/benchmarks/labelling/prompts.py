"""Which prompt labels best: `python tests/benchmarks/labelling/prompts.py CHECKPOINT TEXTS RESULTS [--rows N] ...`.

CHECKPOINT is what `checkpoint.py` writes, TEXTS what `texts.py` does. Each prompt is a task of a job, and goes the way of
a job's rows: its encoder, the scorer, the calibrations. A line of JSON for each measurement goes to RESULTS; those that
are there already are not made again, so it may be stopped and started. `--table` prints what RESULTS has as Markdown.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from models import Scorer
from models.config.model_config import ModelConfig
from models.tasks.calibration import label_mass, log_mean, log_prior, log_shares, without_bias
from models.text.tokenizer import Tokenizer
from pipelines.job import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import NO_ROW_GROUP, Unit
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import ModelRequest, Piece, work_of
from pipelines.tasks.labels.task import LabelsTask
from pipelines.unit_steps.prepare import Preparer
from tests.benchmarks.labelling.texts import CLAUSES, plain_texts

QUESTION: Final = "Which label fits this text best?"
CALIBRATIONS: Final = ("none", "prior", "batch")
TASKS: Final = ("plain", "fortunes", "long")


def prompts_of(labels: tuple[str, ...]) -> dict[str, LabelsTask]:
    """The prompts that are compared, by name."""
    listed = ", ".join(labels)
    before = f"{{{{ body }}}}\n\nQuestion: {QUESTION}\nAnswer with one of: {listed}."
    examples = tuple({"text": row["body"], "label": row["topic"]} for row in plain_texts(seed=11)[:25])
    built_in = LabelsTask(text="{{ body }}", labels=labels)
    found = {
        "built-in": built_in,
        "built-in, stop token": replace(built_in, label_stop=True),
        "built-in, with a question": replace(built_in, question=QUESTION),
        "built-in, labels described": replace(built_in, descriptions={label: f"about {label}" for label in labels}),
        "own: Topic": LabelsTask(prompt="Text: {{ body }}\nTopic: ", labels=labels),
        "own: about": LabelsTask(prompt="{{ body }}\n\nThe text above is about ", labels=labels),
        "own: Quote": LabelsTask(prompt="Quote: {{ body }}\nCategory of this quote: ", labels=labels),
        "own: Topic, stop token": LabelsTask(prompt="Text: {{ body }}\nTopic: ", labels=labels, label_stop=True),
        "own: Label": LabelsTask(prompt="Text: {{ body }}\nLabel: ", labels=labels),
        "own: labels listed": LabelsTask(
            prompt=f"Categories: {listed}\n\nText: {{{{ body }}}}\nCategory: ", labels=labels
        ),
        "chat: labels listed (before)": LabelsTask(
            messages=({"role": "user", "content": before},), labels=labels, label_stop=True
        ),
        "chat: labels listed, no stop token": LabelsTask(
            messages=({"role": "user", "content": before},), labels=labels
        ),
        "no chat: labels listed (before)": LabelsTask(prompt=f"{before}\nAnswer: ", labels=labels, label_stop=True),
        "chat: answer begun": LabelsTask(
            messages=({"role": "user", "content": "Text: {{ body }}"}, {"role": "assistant", "content": "Category:"}),
            chat_template_kwargs={"continue_final_message": True},
            labels=labels,
            label_texts={label: f" {label}" for label in labels},
        ),
    }
    if set(labels) == set(CLAUSES):
        found["built-in, 5 examples"] = replace(built_in, examples=examples)
        found["built-in, 5 similar examples"] = replace(built_in, examples=examples, select="similar")
    return found


class Bench:
    """A checkpoint in one form, and texts."""

    def __init__(self, checkpoint: Path, texts: Path, dtype: str) -> None:
        quantization = dtype if dtype in ("int8", "nf4") else None
        self._scorer = Scorer.from_pretrained(
            checkpoint, dtype="float32" if quantization else dtype, quantization=quantization
        )
        self._tokenizer = Tokenizer.from_pretrained(checkpoint)
        self._facts = TaskFacts.from_config(ModelConfig.from_pretrained(checkpoint), self._tokenizer, None)
        self._texts = texts

    def has(self, name: str, prompt: str) -> bool:
        """Whether there is such a prompt for these texts: examples are of one kind."""
        return prompt in prompts_of(self._labels(name))

    def _labels(self, name: str) -> tuple[str, ...]:
        return tuple(sorted({row["topic"] for row in self._rows(name)}))

    def _rows(self, name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self._texts / f"{name}.jsonl").read_text().splitlines()]

    def measure(self, name: str, prompt: str, *, num_rows: int, is_reversed: bool) -> dict[str, Any]:
        """One prompt over some texts."""
        labels = self._labels(name)[:: -1 if is_reversed else 1]
        rows = self._rows(name)[:num_rows]
        task = replace(prompts_of(labels)[prompt], calibrate="prior")
        began = time.monotonic()
        prepared, trial, asked = self._prepared(task, rows)
        logprobs = self._scored(prepared, asked)
        prior = log_prior(self._scored([_request(piece) for piece in trial], asked))
        gold = np.array([labels.index(row["topic"]) for row in rows])
        compared = {
            "none": log_shares(logprobs),
            "prior": without_bias(logprobs, prior),
            "batch": without_bias(logprobs, log_mean(logprobs)),
        }
        return {
            "rows": len(rows),
            "accuracy": {how: float((found.argmax(axis=1) == gold).mean()) for how, found in compared.items()},
            "mass": float(label_mass(logprobs).mean()),
            "prompt_tokens": sum(len(request.token_ids) for request in prepared) / len(rows),
            "seconds": time.monotonic() - began,
        }

    def _prepared(self, task: LabelsTask, rows: Sequence[Mapping[str, str]]) -> tuple[Any, Any, Any]:
        job = Job(
            name="bench", model=ModelSpec(path="m"), task=task, input=InputSpec(paths=("t",)), output=OutputSpec(path="o")
        )  # fmt: skip
        preparer = Preparer(job, self._tokenizer, self._facts)
        table = pa.table({"body": [row["body"] for row in rows]})
        unit = Unit(
            index=0, path="t", relative_path="t", format="jsonl", row_group=NO_ROW_GROUP, offset=0, first_row=0,
            num_rows=len(rows), num_bytes=1, source_size=1, source_tag="", is_cuttable=True,
        )  # fmt: skip
        given = UnitRows(unit=unit, rows=ArrowRows(table=table), row_numbers=np.arange(len(rows)), failures=())
        prepared = preparer.prepare(given, relative_path="t")
        assert not prepared.failures, prepared.failures[0].message
        return prepared.requests, preparer.trial, preparer.asked.labels

    def _scored(self, requests: Sequence[ModelRequest], labels: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
        work = work_of("bench", requests)
        ids = list(work.requests())
        found: np.ndarray[Any, np.dtype[np.float32]] = np.stack(
            [scores.numpy() for scores in self._scorer.score_own_labels(ids, work.labels(labels))]
        )
        return found


def _request(piece: Piece) -> ModelRequest:
    return ModelRequest(row=0, token_ids=piece.token_ids, labels=piece.labels)


def table_of(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a table: a row for each prompt, dtype and order, a column for each kind of text and calibration."""
    yield "| prompt | dtype | " + " | ".join(f"{name}: none / prior / batch" for name in TASKS) + " |"
    yield "|---|---|" + "---|" * len(TASKS)
    keys = dict.fromkeys((each["prompt"], each["dtype"], each["reversed"]) for each in results)
    for prompt, dtype, is_reversed in keys:
        cells = []
        for name in TASKS:
            key = (prompt, dtype, is_reversed, name)
            found = [
                each for each in results if (each["prompt"], each["dtype"], each["reversed"], each["texts"]) == key
            ]
            cells.append(_cell(found[-1]) if found else "")
        yield f"| {prompt}{', labels reversed' if is_reversed else ''} | {dtype} | " + " | ".join(cells) + " |"


def _cell(result: Mapping[str, Any]) -> str:
    """The accuracy with each calibration, and over how many texts."""
    shown = " / ".join(f"{result['accuracy'][how]:.3f}" for how in CALIBRATIONS)
    return f"{shown} ({result['rows']:,})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--prompts", nargs="+", default=list(prompts_of(tuple(CLAUSES))))
    parser.add_argument("--kinds", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16", "int8", "nf4"])
    parser.add_argument("--reversed", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    if given.table:
        sys.stdout.write("\n".join(table_of(done)) + "\n")
        return
    torch.set_num_threads(2)
    for dtype in given.dtypes:
        bench = Bench(given.checkpoint, given.texts, dtype)
        for prompt in given.prompts:
            for name in given.kinds:
                key = {"prompt": prompt, "texts": name, "dtype": dtype, "reversed": given.reversed}
                if any(each | key == each for each in done) or not bench.has(name, prompt):
                    continue
                result = key | bench.measure(name, prompt, num_rows=given.rows, is_reversed=given.reversed)
                with given.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                sys.stdout.write(f"{json.dumps(result)}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
