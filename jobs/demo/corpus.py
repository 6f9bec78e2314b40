"""Made-up support tickets with every answer known: category, urgency, one-line summary, spans and the answer to a question.

A ticket depends on its seed and number alone, so any part of a corpus can be made again. It knows nothing of files or models.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal

from jobs.demo import vocabulary as words

SpanLabel = Literal["PRODUCT", "ORDER", "PERSON"]
SPAN_LABELS: tuple[SpanLabel, ...] = ("PRODUCT", "ORDER", "PERSON")
LONG_SHARE = 0.06
NOTHING = "-"

QUESTIONS = {
    "order": "What is the order number?",
    "bought": "When was it bought?",
    "person": "Who is writing?",
    "product": "Which product is it about?",
}
"""What may be asked of a ticket, by the slot that answers it."""

_LABEL_OF_SLOT: dict[str, SpanLabel] = {"product": "PRODUCT", "order": "ORDER", "person": "PERSON", "agent": "PERSON"}
_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TicketSpan:
    """A stretch of a ticket's body: character offsets, end exclusive, and what fills it (a span label, or a slot's name)."""

    start: int
    end: int
    label: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """One ticket and everything there is to know of it; `answer` is None if the body does not say
    what `question` asks for."""

    ticket_id: str
    opened: datetime
    channel: str
    city: str
    tags: tuple[str, ...]
    body: str
    category: str
    urgency: str
    summary: str
    spans: tuple[TicketSpan, ...]
    question: str
    answer: TicketSpan | None


def make_tickets(count: int, *, seed: int) -> Iterator[Ticket]:
    """Yields tickets 0 to `count` - 1 of a seed; about `LONG_SHARE` of them ramble over several windows."""
    for number in range(count):
        yield make_ticket(number, seed=seed)


def make_ticket(number: int, *, seed: int, ramblings: int | None = None) -> Ticket:
    """The ticket with this number: the same one each time, whatever was made before.

    `ramblings` is how many irrelevant sentences it holds (about 25 tokens each); None leaves it to
    the draw.
    """
    rng = Random(f"{seed}/{number}")
    category, urgency = rng.choice(words.CATEGORIES), rng.choices(words.URGENCIES, (3, 4, 3))[0]
    facts = _Facts.draw(rng)
    if ramblings is None:
        ramblings = rng.randint(5, 11) if rng.random() < LONG_SHARE else 0
    sentences = _sentences(rng, category, urgency, facts, ramblings)
    body, marks = _write(rng, sentences, facts)
    asked = rng.choice(tuple(QUESTIONS))
    return Ticket(
        ticket_id=f"T-{seed:03d}-{number:06d}",
        opened=datetime(2026, 1, 5, 8, tzinfo=UTC) + timedelta(seconds=rng.randrange(300 * 86400)),
        channel=rng.choice(("mail", "chat", "form")),
        city=rng.choice(words.CITIES),
        tags=tuple(rng.sample(("vip", "retail", "repeat", "warranty", "größer"), rng.randrange(3))),
        body=body,
        category=category,
        urgency=urgency,
        summary=" | ".join((category, facts.product or NOTHING, facts.order or NOTHING, urgency)),
        spans=tuple(
            TicketSpan(start=mark.start, end=mark.end, label=_LABEL_OF_SLOT[mark.label], text=mark.text)
            for mark in marks
            if mark.label in _LABEL_OF_SLOT
        ),
        question=QUESTIONS[asked],
        answer=next((mark for mark in marks if mark.label == asked), None),
    )


def row_of(ticket: Ticket) -> dict[str, Any]:
    """The ticket as a row of the corpus: what a job sees of it, without any of the answers."""
    return {
        "ticket_id": ticket.ticket_id,
        "opened": ticket.opened,
        "customer": {"city": ticket.city, "channel": ticket.channel},
        "tags": list(ticket.tags),
        "body": ticket.body,
        "question": ticket.question,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """What a ticket says, in its canonical spelling; None is left out of the body."""

    product: str | None
    order: str | None
    person: str | None
    bought: str | None

    @classmethod
    def draw(cls, rng: Random) -> "_Facts":
        return cls(
            product=_product(rng) if rng.random() < 0.85 else None,
            order=f"{rng.choice(words.ORDER_SERIES)}-{_digits(rng, 5)}" if rng.random() < 0.75 else None,
            person=_person(rng) if rng.random() < 0.8 else None,
            bought=_date(rng) if rng.random() < 0.6 else None,
        )


def _sentences(rng: Random, category: str, urgency: str, facts: _Facts, ramblings: int) -> list[str]:
    """Grammars in the order in which they are written: greeting, everything else shuffled, signature."""
    is_introduced = rng.random() < 0.45
    middle = rng.sample(words.ISSUES[category], 2 if rng.random() < 0.2 else 1)
    middle = [_sentence(rng, issue) for issue in middle]
    middle += [rng.choice(words.URGENCY_CUES[urgency])]
    middle += rng.sample(words.DISTRACTIONS, rng.choice((0, 1, 1, 2, 3)))
    if facts.product:
        middle.append(rng.choice(words.PRODUCT_LINES))
    if facts.order:
        middle.append(rng.choice(words.ORDER_LINES))
    if facts.bought:
        middle.append(rng.choice(words.BOUGHT_LINES))
    if facts.person and is_introduced:
        middle.append(rng.choice(words.INTRODUCTIONS))
    middle += rng.choices(words.RAMBLINGS, k=ramblings)
    rng.shuffle(middle)
    is_signed = facts.person and not is_introduced
    return [rng.choice(words.GREETINGS), *middle, rng.choice(words.SIGNATURES if is_signed else words.UNSIGNED)]


def _sentence(rng: Random, issue: str) -> str:
    """An issue's clause as a sentence of its own."""
    clause = _expand(rng, issue)
    return clause[0].upper() + clause[1:] + ("" if clause.endswith("?") else rng.choice((".", ".", "!", "...")))


def _write(rng: Random, sentences: list[str], facts: _Facts) -> tuple[str, list[TicketSpan]]:
    """Joins the sentences into a body and marks every slot's place in it."""
    has_typos = rng.random() < 0.25
    is_lower = rng.random() < 0.1
    body, marks = "", []
    for sentence in sentences:
        text = _expand(rng, sentence)
        if not text:
            continue
        is_shouted = "{" not in text and rng.random() < 0.02
        casing = str.upper if is_shouted else str.lower if is_lower else str
        if body:
            body += rng.choice((" ", " ", " ", "\n", "\n\n")) if body[-1] in ".!?…" else "\n"
        for index, piece in enumerate(_SLOT.split(text)):
            if index % 2 == 0:
                body += casing(_misspell(rng, piece) if has_typos else piece)
                continue
            value = casing(_fill(rng, piece, facts))
            marks.append(TicketSpan(start=len(body), end=len(body) + len(value), label=piece, text=value))
            body += value
    return body, marks


def _expand(rng: Random, grammar: str) -> str:
    """Replaces every choice by one of its branches, innermost first."""
    while _CHOICE.search(grammar):
        grammar = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), grammar)
    return grammar


def _misspell(rng: Random, text: str) -> str:
    """Swaps, drops or doubles a letter inside about one lower-case word in twelve."""

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() > 1 / 12:
            return word
        at = rng.randrange(1, len(word) - 1)
        middle = rng.choice((word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]))
        return word[:at] + middle + word[at + 2 :]

    return _WORD.sub(slip, text)


def _fill(rng: Random, slot: str, facts: _Facts) -> str:
    """What stands in a slot: a fact as this customer happens to write it, or something that only looks like one."""
    if slot in _LOOKALIKES:
        return _LOOKALIKES[slot](rng)
    fact: str | None = getattr(facts, slot)
    assert fact is not None, f"a sentence about {slot!r} was chosen for a ticket without it"
    return _as_written(rng, fact) if slot == "order" else fact


def _as_written(rng: Random, order: str) -> str:
    """An order number the way people type it."""
    return rng.choice((order, order, order.replace("-", ""), order.replace("-", " "), order.lower()))


def _product(rng: Random) -> str:
    model = _SLOT.sub(lambda _: _digits(rng, 1), rng.choice(words.MODELS))
    return f"{rng.choice(words.BRANDS)} {rng.choice(words.ITEMS)}{model}"


def _person(rng: Random) -> str:
    """A first name, mostly with a last name; one last name in four is made of syllables and so mostly never seen before."""
    if rng.random() < 0.03:
        return rng.choice(words.FULL_NAMES)
    first = rng.choice(words.FIRST_NAMES)
    if rng.random() < 0.2:
        return first
    if rng.random() < 0.25:
        return f"{first} {''.join(rng.choices(words.SYLLABLES, k=rng.randint(2, 3))).capitalize()}"
    return f"{first} {rng.choice(words.LAST_NAMES)}"


def _date(rng: Random) -> str:
    day, month, name = rng.randint(1, 28), rng.randint(1, 12), rng.choice(words.MONTHS)
    return rng.choice(
        (
            f"{day} {name}",
            f"{day} {name} 2026",
            f"{rng.choice(words.WEEKDAYS)}, {day} {name}",
            f"{name} {day}",
            f"{day:02d}/{month:02d}/2026",
            f"2026-{month:02d}-{day:02d}",
        )
    )


def _digits(rng: Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))


_LOOKALIKES: dict[str, Callable[[Random], str]] = {
    "agent": lambda rng: rng.choice(words.FIRST_NAMES) if rng.random() < 0.6 else _person(rng),
    "other_date": _date,
    "invoice": lambda rng: f"{rng.choice(('INV', 'R', 'RE'))}-{_digits(rng, 4)}",
    "tracking": lambda rng: f"{rng.choice(('TRK', 'PX'))}{_digits(rng, 8)}",
    "serial": lambda rng: f"SN{_digits(rng, 4)}-{rng.choice('ABCDE')}",
    "price": lambda rng: f"{rng.choice('€$£')}{rng.randrange(5, 400)}.{_digits(rng, 2)}",
    "city": lambda rng: rng.choice(words.CITIES),
    "digit": lambda rng: _digits(rng, 1),
}
