"""Trains the demo's tokenizer and its four checkpoints: `python -m jobs.demo.train`.

The causal network learns first to copy, then to answer; the other three start from its body. Every ticket is new to the network, so
there are no epochs. The tickets that it is measured on, and those of the demo, come from other seeds.
"""

import argparse
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from jobs.demo import CHECKPOINTS
from jobs.demo import vocabulary as words
from jobs.demo.accuracy import accuracy
from jobs.demo.checkpoint import load_weights, save_settings, save_weights
from jobs.demo.corpus import make_ticket, make_tickets, row_of
from jobs.demo.examples import TAGS, Example, ExampleMaker, echo_examples, job_examples, load_task
from jobs.demo.network import Network, Shape, TaskHead
from jobs.demo.tokenizer import END_OF_TEXT, train_tokenizer
from jobs.demo.training import Course, train
from pipelines.templates.templates import RowTemplate

logger = logging.getLogger(__name__)

SHAPE = Shape(
    vocab_size=2048,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=768,
)
LABELS: dict[TaskHead, tuple[str, ...]] = {
    "causal": (),
    "sequence-classification": words.CATEGORIES,
    "token-classification": TAGS,
    "question-answering": (),
}
JOBS: dict[TaskHead, tuple[str, ...]] = {
    "causal": ("summary", "urgency"),
    "sequence-classification": ("category",),
    "token-classification": ("entities",),
    "question-answering": ("answer",),
}
COPYING = Course(num_batches=250)
ANSWERING = Course(num_batches=2400)
HEADS: dict[TaskHead, Course] = {
    "sequence-classification": Course(num_batches=600, matrix_rate=0.01, other_rate=0.002),
    "token-classification": Course(num_batches=600, matrix_rate=0.01, other_rate=0.002),
    "question-answering": Course(num_batches=900, matrix_rate=0.01, other_rate=0.002),
}
TRAINING_SEED = 1
HELD_OUT_SEED = 900
NUM_TOKENIZER_TICKETS = 6000
NUM_HELD_OUT_TICKETS = 1000

README = """\
# The demo's checkpoints

Four Qwen3-shaped networks of one million parameters, trained from nothing on made-up support tickets and rounded to
bfloat16. They are good for the demo and for nothing else. The three with a task head start from the causal one's body.

Made by

    python -m jobs.demo.train

with {made_with}. Another machine or
thread count rounds differently and gives slightly different weights.

Accuracy is the share of the requests of {tickets} held-out tickets (seed {seed}) that the rounded weights get exactly right:
the whole summary to the letter, all tags of a window, both ends of the answer in a window.

| checkpoint | job | accuracy | CPU time |
|---|---|---|---|
{lines}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What became of one checkpoint: seconds of CPU time, and the share of held-out requests that each of its jobs gets right."""

    head: TaskHead
    seconds: float
    accuracies: dict[str, float]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder of the four checkpoints")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; more do not help networks this small")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    trained = train_all(arguments.out)
    (arguments.out / "README.md").write_text(describe(trained, threads=arguments.threads), encoding="utf-8")


def train_all(out: Path) -> list[Trained]:
    """Writes the four checkpoint folders into `out`."""
    tokenizer = train_tokenizer(_texts(), vocab_size=SHAPE.vocab_size)
    for head, labels in LABELS.items():
        save_settings(SHAPE, head, tokenizer, out / head, labels=labels)
    pad_id = tokenizer.token_to_id(END_OF_TEXT)
    assert pad_id is not None
    torch.manual_seed(TRAINING_SEED)
    causal, trained = _train_causal(out / "causal", pad_id)
    return [trained, *(_train_head(head, causal, out / head, pad_id) for head in HEADS)]


def _texts() -> Iterator[str]:
    """What the tokenizer is trained on: tickets, with the words that stand around them in the jobs' prompts."""
    summary, urgency = load_task("summary"), load_task("urgency")
    place = "task.messages[0].content"
    asked = dict(urgency.templates())[place].partition("\n\n")[2] + "\nassistant\n"
    template = RowTemplate(dict(summary.templates())[place], place=place)
    for ticket in make_tickets(NUM_TOKENIZER_TICKETS, seed=TRAINING_SEED):
        prompt = template.render(row_of(ticket))
        yield f"user\n{prompt}\n{asked}{ticket.summary}\n{ticket.question}{ticket.body}"


def _train_causal(folder: Path, pad_id: int) -> tuple[Network, Trained]:
    started = time.process_time()
    network = Network(SHAPE, "causal")
    train(network, stream_of([echo_examples(folder)], seed=TRAINING_SEED), COPYING, pad_id=pad_id, seed=TRAINING_SEED)
    answers = stream_of([job_examples(job, folder) for job in JOBS["causal"]], seed=TRAINING_SEED + 1)
    train(network, answers, ANSWERING, pad_id=pad_id, seed=TRAINING_SEED)
    return network, _finish(network, folder, pad_id, seconds=time.process_time() - started)


def _train_head(head: TaskHead, causal: Network, folder: Path, pad_id: int) -> Trained:
    started = time.process_time()
    network = Network(SHAPE, head, num_labels=len(LABELS[head]))
    network.body.load_state_dict(causal.body.state_dict())
    examples = stream_of([job_examples(job, folder) for job in JOBS[head]], seed=TRAINING_SEED + 2)
    train(network, examples, HEADS[head], pad_id=pad_id, seed=TRAINING_SEED)
    return _finish(network, folder, pad_id, seconds=time.process_time() - started)


def _finish(network: Network, folder: Path, pad_id: int, *, seconds: float) -> Trained:
    """Writes the weights, and measures what was written: rounded to bfloat16."""
    save_weights(network, folder)
    rounded = Network(SHAPE, network.head, num_labels=len(LABELS[network.head]))
    load_weights(rounded, folder)
    accuracies = {}
    for job in JOBS[network.head]:
        make = job_examples(job, folder)
        held_out = [
            example for ticket in make_tickets(NUM_HELD_OUT_TICKETS, seed=HELD_OUT_SEED) for example in make(ticket)
        ]
        accuracies[job] = accuracy(rounded, held_out, pad_id=pad_id)
        logger.info("%s: %s right in %.2f%% of held-out requests", network.head, job, 100 * accuracies[job])
    return Trained(head=network.head, seconds=seconds, accuracies=accuracies)


def stream_of(makers: Sequence[ExampleMaker], *, seed: int) -> Iterator[Example]:
    """Every maker's examples of one new ticket after the other, without end."""
    for number in count():
        ticket = make_ticket(number, seed=seed)
        for make in makers:
            yield from make(ticket)


def describe(trained: Sequence[Trained], *, threads: int) -> str:
    """The README beside the checkpoints."""
    made_with = f"seed {TRAINING_SEED}, torch {torch.__version__} and --threads {threads} on {platform.machine()}"
    lines = [
        f"| {each.head} | {job} | {share:.1%} | {each.seconds:.0f} s |"
        for each in trained
        for job, share in each.accuracies.items()
    ]
    return README.format(made_with=made_with, tickets=NUM_HELD_OUT_TICKETS, seed=HELD_OUT_SEED, lines="\n".join(lines))


if __name__ == "__main__":
    main()
