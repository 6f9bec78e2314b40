"""Tickets as training examples: the very requests that a demo job would send to its model, and what each should answer.

The requests come from the encoders of `pipelines`, so prompts, windows and offsets cannot differ between training and a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.demo import SPECS
from jobs.demo import vocabulary as words
from jobs.demo.corpus import SPAN_LABELS, Ticket, TicketSpan, row_of
from jobs.spec.job import load_spec
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Piece, RowEncoder
from pipelines.task_base.task import Task

TAGS = ("O", *(f"{position}-{label}" for label in SPAN_LABELS for position in "BI"))
IGNORED = -100
ECHO_TOKENS = (16, 64)

Offsets = npt.NDArray[np.int32]
ExampleMaker = Callable[[Ticket], list["Example"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Token ids and what to say about them.

    `targets` is one class a token (IGNORED: none), except for question answering, where it is the first and the last token of the
    answer, or 0 and 0 for no answer.
    """

    ids: list[int]
    targets: list[int]


def job_examples(job: str, checkpoint: Path) -> ExampleMaker:
    """A function from a ticket to the examples of the demo job of this name; `checkpoint` needs no weights yet."""
    tokenizer = Tokenizer.from_pretrained(checkpoint)
    facts = TaskFacts.from_config(ModelConfig.from_pretrained(checkpoint), tokenizer, None)
    return partial(_MAKERS[job], load_task(job).encoder(tokenizer, facts), tokenizer)


@cache
def load_task(job: str) -> Task:
    """The task of the demo job of this name, from its spec."""
    return load_spec(SPECS / f"{job}.yaml").job.task


def echo_examples(checkpoint: Path) -> ExampleMaker:
    """A function from a ticket to a stretch of it that is to be repeated: how a causal model learns to copy, and learns it soon.

    Stretches have all lengths, or a model would learn to look a fixed number of tokens back instead of looking for what it copies.
    """
    tokenizer = Tokenizer.from_pretrained(checkpoint)
    stop = tokenizer.eos_token_id
    assert stop is not None

    def make(ticket: Ticket) -> list[Example]:
        rng = Random(ticket.ticket_id)
        ids = tokenizer.encode(ticket.body)
        length = min(rng.randint(*ECHO_TOKENS), len(ids))
        start = rng.randint(0, len(ids) - length)
        stretch = [*ids[start : start + length], stop]
        return [_answered(stretch, stretch)]

    return make


def _summary_examples(encoder: RowEncoder, tokenizer: Tokenizer, ticket: Ticket) -> list[Example]:
    stop = tokenizer.eos_token_id
    assert stop is not None
    answer = [*tokenizer.encode(ticket.summary), stop]
    return [_answered(piece.token_ids.tolist(), answer) for piece in _pieces(encoder, ticket)]


def _urgency_examples(encoder: RowEncoder, tokenizer: Tokenizer, ticket: Ticket) -> list[Example]:
    del tokenizer
    labels: Sequence[str] = load_task("urgency").recorded()["labels"]
    answer = list(encoder.asked.labels[labels.index(ticket.urgency)])
    return [_answered(piece.token_ids.tolist(), answer) for piece in _pieces(encoder, ticket)]


def _category_examples(encoder: RowEncoder, tokenizer: Tokenizer, ticket: Ticket) -> list[Example]:
    del tokenizer
    category = words.CATEGORIES.index(ticket.category)
    return [
        Example(ids=piece.token_ids.tolist(), targets=[IGNORED] * (len(piece.token_ids) - 1) + [category])
        for piece in _pieces(encoder, ticket)
    ]


def _tag_examples(encoder: RowEncoder, tokenizer: Tokenizer, ticket: Ticket) -> list[Example]:
    """A tag for each token that its window answers for."""
    del tokenizer
    return [
        Example(ids=piece.token_ids.tolist(), targets=_tags(_offsets(piece), ticket.spans))
        for piece in _pieces(encoder, ticket)
    ]


def _answer_examples(encoder: RowEncoder, tokenizer: Tokenizer, ticket: Ticket) -> list[Example]:
    """The place of the answer in each window that holds all of it, and no answer in the others."""
    del tokenizer
    return [
        Example(ids=piece.token_ids.tolist(), targets=_answer_place(_offsets(piece), ticket.answer))
        for piece in _pieces(encoder, ticket)
    ]


def _pieces(encoder: RowEncoder, ticket: Ticket) -> tuple[Piece, ...]:
    """The ticket's requests; none if it is too long for the task, which makes a dead letter of it in a run too."""
    encoded = encoder.encode_rows([row_of(ticket)], Pace([0]))[0]
    return encoded.pieces if isinstance(encoded, EncodedRow) else ()


def _offsets(piece: Piece) -> Offsets:
    assert piece.offsets is not None
    return piece.offsets


def _answered(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    """A prompt with its answer as targets: each token is what follows the one before it."""
    return Example(ids=[*prompt, *answer[:-1]], targets=[IGNORED] * (len(prompt) - 1) + list(answer))


def _tags(offsets: Offsets, spans: Sequence[TicketSpan]) -> list[int]:
    tags = np.where(offsets[:, 1] > offsets[:, 0], TAGS.index("O"), IGNORED)
    for span in spans:
        inside = _touching(offsets, span)
        tags[inside] = TAGS.index(f"I-{span.label}")
        if len(inside) and offsets[inside[0], 0] <= span.start:
            tags[inside[0]] = TAGS.index(f"B-{span.label}")
    return [int(tag) for tag in tags]


def _answer_place(offsets: Offsets, answer: TicketSpan | None) -> list[int]:
    if answer is None:
        return [0, 0]
    inside = _touching(offsets, answer)
    if not len(inside) or offsets[inside[0], 0] > answer.start or offsets[inside[-1], 1] < answer.end:
        return [0, 0]
    return [int(inside[0]), int(inside[-1])]


def _touching(offsets: Offsets, span: TicketSpan) -> npt.NDArray[np.int64]:
    """The tokens that share a character with the span, in order."""
    return np.flatnonzero((offsets[:, 0] < span.end) & (offsets[:, 1] > span.start))


_MAKERS: Final[dict[str, Callable[[RowEncoder, Tokenizer, Ticket], list[Example]]]] = {
    "summary": _summary_examples,
    "urgency": _urgency_examples,
    "category": _category_examples,
    "entities": _tag_examples,
    "answer": _answer_examples,
}
