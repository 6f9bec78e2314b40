"""The checkpoints that ship: small, loadable by transformers, and right about tickets that nobody has seen."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Qwen3ForCausalLM,
    Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from jobs.demo import CHECKPOINTS
from jobs.demo.corpus import make_tickets
from jobs.demo.demo import DEFAULT_SEED, JOBS
from jobs.demo.examples import IGNORED, Example, job_examples
from jobs.demo.network import TaskHead
from jobs.demo.train import HELD_OUT_SEED, LABELS, SHAPE, TRAINING_SEED
from models import Engine, SamplingParams, Scorer

CLASSES: dict[str, Any] = {
    "causal": Qwen3ForCausalLM,
    "sequence-classification": Qwen3ForSequenceClassification,
    "token-classification": Qwen3ForTokenClassification,
    "question-answering": Qwen3ForQuestionAnswering,
}
FRESH_SEED = 555
NUM_FRESH = 50
MAX_FILE_BYTES = 2 * 1024**2
MAX_FOLDER_BYTES = 9 * 1024**2


def fresh_examples(job: str, checkpoint: str) -> list[Example]:
    make = job_examples(job, CHECKPOINTS / checkpoint)
    tickets = make_tickets(NUM_FRESH, seed=FRESH_SEED)
    return list(islice((example for ticket in tickets for example in make(ticket)), NUM_FRESH))


def is_right(example: Example, checkpoint: str, output: Any) -> bool:
    """Whether the likeliest classes are the right ones; for the causal model, whether greedy decoding would walk the answer."""
    targets = torch.tensor(example.targets)
    match checkpoint:
        case "question-answering":
            return [output.start_logits.argmax().item(), output.end_logits.argmax().item()] == example.targets
        case "sequence-classification":
            return bool(output.logits.argmax() == targets[-1])
        case _:
            right = (output.logits[0].argmax(-1) == targets) | (targets == IGNORED)
            return bool(right.all())


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@torch.no_grad()
def test_transformers_loads_it_and_it_is_right_about_fresh_tickets(job: Any) -> None:
    model, report = CLASSES[job.checkpoint].from_pretrained(
        CHECKPOINTS / job.checkpoint, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values())
    examples = fresh_examples(job.name, job.checkpoint)
    right = [is_right(each, job.checkpoint, model(input_ids=torch.tensor([each.ids]))) for each in examples]
    assert sum(right) / len(right) >= 0.9


def test_engine_writes_the_summaries() -> None:
    examples = fresh_examples("summary", "causal")
    prompts = [[*example.ids[: prompt_length(example)]] for example in examples]
    engine = Engine.from_pretrained(str(CHECKPOINTS / "causal"))
    outputs = engine.generate(prompts, SamplingParams(max_tokens=48, temperature=0.0))
    right = [output.token_ids == answer(example) for output, example in zip(outputs, examples, strict=True)]
    assert sum(right) / len(right) >= 0.9


def prompt_length(example: Example) -> int:
    return next(place for place, target in enumerate(example.targets) if target != IGNORED) + 1


def answer(example: Example) -> list[int]:
    return [target for target in example.targets if target != IGNORED]


def test_scorer_names_the_categories() -> None:
    folder = CHECKPOINTS / "sequence-classification"
    scorer = Scorer.from_pretrained(str(folder))
    examples = fresh_examples("category", folder.name)
    logits = scorer.score([example.ids for example in examples])
    right = [int(each.argmax()) == example.targets[-1] for each, example in zip(logits, examples, strict=True)]
    assert sum(right) / len(right) >= 0.9


@pytest.mark.parametrize("head", LABELS)
def test_all_share_one_tokenizer(head: TaskHead) -> None:
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in names:
        assert (CHECKPOINTS / head / name).read_bytes() == (CHECKPOINTS / "causal" / name).read_bytes()
    assert len(AutoTokenizer.from_pretrained(CHECKPOINTS / head)) == SHAPE.vocab_size


def test_files_are_small_enough_for_a_repository() -> None:
    sizes = [path.stat().st_size for path in Path(CHECKPOINTS).rglob("*") if path.is_file()]
    assert max(sizes) < MAX_FILE_BYTES
    assert sum(sizes) < MAX_FOLDER_BYTES


def test_demo_and_tests_ask_about_tickets_that_training_never_saw() -> None:
    training = {TRAINING_SEED, TRAINING_SEED + 1, TRAINING_SEED + 2}
    assert len({*training, HELD_OUT_SEED, DEFAULT_SEED, FRESH_SEED}) == len(training) + 3
