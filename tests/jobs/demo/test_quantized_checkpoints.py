"""What the checkpoints that ship lose when they are quantized: under one point of accuracy."""

from itertools import islice

import pytest
import torch

from jobs.demo import CHECKPOINTS
from jobs.demo.corpus import make_tickets
from jobs.demo.examples import IGNORED, Example, job_examples
from models import Scorer

FRESH_SEED = 777
NUM_FRESH = 200
JOBS = {
    "summary": "causal",
    "category": "sequence-classification",
    "entities": "token-classification",
    "answer": "question-answering",
}


def examples_of(job: str) -> list[Example]:
    make = job_examples(job, CHECKPOINTS / JOBS[job])
    tickets = make_tickets(NUM_FRESH, seed=FRESH_SEED)
    return list(islice((example for ticket in tickets for example in make(ticket)), NUM_FRESH))


def num_right(job: str, examples: list[Example], quantization: str | None) -> tuple[int, int]:
    """How many texts are right as a whole, to the last token, and how many there are."""
    scorer = Scorer.from_pretrained(CHECKPOINTS / JOBS[job], quantization=quantization)
    verdicts: list[bool] = []
    for example, logits in zip(examples, scorer.score([example.ids for example in examples]), strict=True):
        targets = torch.tensor(example.targets)
        if job == "category":
            verdicts.append(bool(logits.argmax() == targets[-1]))
        elif job == "answer":
            verdicts.append(logits.argmax(0).tolist() == example.targets)
        else:
            verdicts.append(bool(((logits.argmax(-1) == targets) | (targets == IGNORED)).all()))
    return sum(verdicts), len(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("job", list(JOBS))
def test_int8_and_nf4_lose_less_than_a_point(job: str) -> None:
    examples = examples_of(job)
    whole, total = num_right(job, examples, None)
    for method in ("int8", "nf4"):
        right, _ = num_right(job, examples, method)
        assert (whole - right) / total < 0.01, f"{method}: {right} of {total}, and {whole} unquantized"
