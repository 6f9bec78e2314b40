"""Rows per second of a labelling job beside transformers in static batches: `python tests/benchmarks/labelling/speed.py CHECKPOINT TEXTS`.

Both score the same prompts and every token of every label, in float32 on two threads, in turns. transformers has batches of rows
sorted by length, a sequence for each label of a row; a second figure of it is of the prompts alone, once a row, which is what labels of
one token would cost. CHECKPOINT is what `checkpoint.py` writes, TEXTS what `texts.py` does.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from models import Scorer
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.job import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import NO_ROW_GROUP, Unit
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import work_of
from pipelines.tasks.labels.task import LabelsTask
from pipelines.unit_steps.prepare import Preparer


def tasks(labels: tuple[str, ...]) -> dict[str, LabelsTask]:
    """The jobs that are measured; rows of the second have no beginning in common."""
    return {
        "built-in prompt": LabelsTask(text="{{ body }}", labels=labels),
        "nothing shared": LabelsTask(prompt="{{ body }}\nTopic: ", labels=labels),
    }


Scored = tuple[list[list[int]], list[tuple[tuple[int, ...], ...]]]


def prepared(task: LabelsTask, rows: Sequence[dict[str, str]], tokenizer: Tokenizer, facts: TaskFacts) -> Scored:
    """The prompts of a job's rows, and the labels behind each, as token ids."""
    job = Job(
        name="s", model=ModelSpec(path="m"), task=task, input=InputSpec(paths=("t",)), output=OutputSpec(path="o")
    )
    preparer = Preparer(job, tokenizer, facts)
    unit = Unit(
        index=0, path="t", relative_path="t", format="jsonl", row_group=NO_ROW_GROUP, offset=0, first_row=0,
        num_rows=len(rows), num_bytes=1, source_size=1, source_tag="", is_cuttable=True,
    )  # fmt: skip
    table = pa.table({"body": [row["body"] for row in rows]})
    given = UnitRows(unit=unit, rows=ArrowRows(table=table), row_numbers=np.arange(len(rows)), failures=())
    requests = preparer.prepare(given, relative_path="t").requests
    work = work_of("speed", requests)
    return list(work.requests()), work.labels(preparer.asked.labels)


def ours(scorer: Scorer, scored: Scored) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The log probability of each label of each row [R, L]."""
    found: np.ndarray[Any, np.dtype[np.float32]] = np.stack([one.numpy() for one in scorer.score_own_labels(*scored)])
    return found


@torch.no_grad()
def theirs(network: Any, scored: Scored, batch: int, *, prompts_alone: bool) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The same from static batches, padded on the right; with `prompts_alone` of the first token of each label."""
    found = np.zeros((len(scored[0]), len(scored[1][0])), np.float32)
    pairs = [
        (row, place, ids + list(label))
        for row, (ids, labels) in enumerate(zip(*scored, strict=True))
        for place, label in enumerate(labels)
        if not prompts_alone or place == 0
    ]
    pairs.sort(key=lambda pair: len(pair[2]))
    for begin in range(0, len(pairs), batch):
        some = pairs[begin : begin + batch]
        ids = [scored[0][row] if prompts_alone else whole for row, _, whole in some]
        longest = max(map(len, ids))
        padded = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        logprobs = torch.log_softmax(network(input_ids=padded, attention_mask=mask).logits, dim=-1)
        for number, (row, place, whole) in enumerate(some):
            num_prompt = len(scored[0][row])
            if prompts_alone:
                found[row] = [float(logprobs[number, num_prompt - 1, label[0]]) for label in scored[1][row]]
            else:
                places = range(num_prompt, len(whole))
                found[row, place] = sum(float(logprobs[number, at - 1, whole[at]]) for at in places)
    return found


def fresh(checkpoint: Path, scored: Scored) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Ours by a scorer that has kept nothing yet; loading included."""
    return ours(Scorer.from_pretrained(checkpoint, dtype="float32"), scored)


def seconds(call: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(2)
    rows = [json.loads(line) for line in (given.texts / "plain.jsonl").read_text().splitlines()][: given.rows]
    labels = tuple(sorted({row["topic"] for row in rows}))
    tokenizer = Tokenizer.from_pretrained(given.checkpoint)
    facts = TaskFacts.from_config(ModelConfig.from_pretrained(given.checkpoint), tokenizer, None)
    network = AutoModelForCausalLM.from_pretrained(given.checkpoint, dtype=torch.float32)
    for name, task in tasks(labels).items():
        scored = prepared(task, rows, tokenizer, facts)
        mine, whole = (
            ours(Scorer.from_pretrained(given.checkpoint, dtype="float32"), scored),
            theirs(network, scored, given.batch, prompts_alone=False),
        )
        assert np.abs(mine - whole).max() < 1e-2, "both score the same"
        for number in range(given.rounds):
            own = seconds(partial(fresh, given.checkpoint, scored))
            load = seconds(partial(Scorer.from_pretrained, given.checkpoint, dtype="float32"))
            full = seconds(partial(theirs, network, scored, given.batch, prompts_alone=False))
            first = seconds(partial(theirs, network, scored, given.batch, prompts_alone=True))
            speeds = [len(rows) / spent for spent in (own - load, full, first)]
            line = {
                "prompt": name, "round": number, "rows": len(rows), "prompt_tokens": sum(map(len, scored[0])) / len(rows),
                "rows_per_s": speeds[0], "transformers": speeds[1], "transformers, prompts alone": speeds[2],
                "ratio": speeds[0] / speeds[1], "ratio to prompts alone": speeds[0] / speeds[2],
            }  # fmt: skip
            sys.stdout.write(
                json.dumps({key: round(v, 2) if isinstance(v, float) else v for key, v in line.items()}) + "\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
