"""Training examples say of each request what the corpus knows."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from jobs.demo.checkpoint import save_settings
from jobs.demo.corpus import make_ticket, make_tickets
from jobs.demo.examples import IGNORED, TAGS, Example, echo_examples, job_examples
from jobs.demo.train import JOBS, LABELS, SHAPE
from models.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folders(tokenizer: Backend, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each job's checkpoint folder, without weights."""
    root = tmp_path_factory.mktemp("settings")
    for head, labels in LABELS.items():
        save_settings(SHAPE, head, tokenizer, root / head, labels=labels)
    return {job: root / head for head, jobs in JOBS.items() for job in jobs}


@pytest.fixture(scope="module")
def text(folders: dict[str, Path]) -> Tokenizer:
    return Tokenizer.from_pretrained(folders["summary"])


TICKETS = list(make_tickets(60, seed=8))
SHORT = [ticket for ticket in TICKETS if len(ticket.body) < 200]
LONG = make_ticket(60, seed=8, ramblings=12)


def answered(example: Example, text: Tokenizer) -> str:
    return text.decode([target for target in example.targets if target != IGNORED], skip_special_tokens=False)


def test_summary_is_the_answer_to_its_prompt(folders: dict[str, Path], text: Tokenizer) -> None:
    make = job_examples("summary", folders["summary"])
    for ticket in TICKETS:
        (example,) = make(ticket)
        assert answered(example, text) == ticket.summary + "<|im_end|>"
        assert ticket.body in text.decode(example.ids)


def test_urgency_is_the_answer_to_its_question(folders: dict[str, Path], text: Tokenizer) -> None:
    make = job_examples("urgency", folders["urgency"])
    for ticket in TICKETS:
        (example,) = make(ticket)
        assert answered(example, text) == ticket.urgency + "<|im_end|>"
        assert "How urgent is this ticket?" in text.decode(example.ids)


def test_category_stands_at_the_last_token(folders: dict[str, Path], text: Tokenizer) -> None:
    make = job_examples("category", folders["category"])
    for ticket in TICKETS:
        (example,) = make(ticket)
        assert LABELS["sequence-classification"][example.targets[-1]] == ticket.category
        assert set(example.targets[:-1]) == {IGNORED}


def spans_of(example: Example, text: Tokenizer) -> list[tuple[str, str]]:
    spans: list[tuple[str, list[int]]] = []
    for token, tag in zip(example.ids, (TAGS[target] for target in example.targets), strict=True):
        if tag.startswith("B-"):
            spans.append((tag[2:], []))
        if tag != "O":
            spans[-1][1].append(token)
    return [(label, text.decode(ids).strip()) for label, ids in spans]


def test_tags_spell_the_spans(folders: dict[str, Path], text: Tokenizer) -> None:
    make = job_examples("entities", folders["entities"])
    for ticket in SHORT:
        (example,) = make(ticket)
        assert spans_of(example, text) == [(span.label, span.text) for span in ticket.spans]


def test_long_ticket_is_read_in_windows_that_answer_for_each_token_once(
    folders: dict[str, Path], text: Tokenizer
) -> None:
    examples = job_examples("entities", folders["entities"])(LONG)
    assert len(examples) > 2
    assert sum(target != IGNORED for example in examples for target in example.targets) == len(text.encode(LONG.body))


def test_answer_is_the_stretch_between_its_two_places(folders: dict[str, Path], text: Tokenizer) -> None:
    make = job_examples("answer", folders["answer"])
    for ticket in SHORT:
        (example,) = make(ticket)
        start, end = example.targets
        stretch = text.decode(example.ids[start : end + 1]).strip() if end else None
        assert stretch == (ticket.answer.text if ticket.answer else None)
        assert text.decode(example.ids).startswith(ticket.question)


def test_window_without_the_answer_answers_nothing(folders: dict[str, Path]) -> None:
    ticket = next(
        ticket for ticket in (make_ticket(n, seed=9, ramblings=14) for n in range(20)) if ticket.answer is not None
    )
    examples = job_examples("answer", folders["answer"])(ticket)
    without = [example for example in examples if example.targets == [0, 0]]
    assert len(examples) > 2
    assert 1 <= len(examples) - len(without) < len(examples)


def test_too_long_ticket_makes_no_example(folders: dict[str, Path]) -> None:
    huge = make_ticket(0, seed=1, ramblings=60)
    assert job_examples("summary", folders["summary"])(huge) == []
    assert job_examples("entities", folders["entities"])(huge)


def test_echo_repeats_a_stretch_of_any_length(folders: dict[str, Path], text: Tokenizer) -> None:
    make = echo_examples(folders["summary"])
    examples = [make(ticket)[0] for ticket in TICKETS]
    for ticket, example in zip(TICKETS, examples, strict=True):
        answer = [target for target in example.targets if target != IGNORED]
        assert example.ids == answer + answer[:-1]
        assert answered(example, text).removesuffix("<|im_end|>").strip("\ufffd") in ticket.body
    assert len({len(example.ids) for example in examples}) > 20
