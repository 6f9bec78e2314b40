"""The made-up tickets: their answers stand where they say, and seeds make different corpora."""

import unicodedata

import pytest

from jobs.demo import vocabulary as words
from jobs.demo.corpus import QUESTIONS, Ticket, make_ticket, make_tickets, row_of


@pytest.fixture(scope="module")
def tickets() -> list[Ticket]:
    return list(make_tickets(1500, seed=31))


def test_spans_stand_where_they_say(tickets: list[Ticket]) -> None:
    spans = [(ticket.body, span) for ticket in tickets for span in ticket.spans]
    assert len(spans) > 2000
    assert all(body[span.start : span.end] == span.text for body, span in spans)


def test_spans_do_not_overlap(tickets: list[Ticket]) -> None:
    for ticket in tickets:
        ends = [span.end for span in ticket.spans]
        assert all(end <= span.start for end, span in zip(ends, ticket.spans[1:], strict=False))


def test_answers_stand_where_they_say_and_some_are_absent(tickets: list[Ticket]) -> None:
    answers = [(ticket.body, ticket.answer) for ticket in tickets if ticket.answer]
    assert all(body[answer.start : answer.end] == answer.text for body, answer in answers)
    assert 0.1 < 1 - len(answers) / len(tickets) < 0.4


def test_summary_names_the_product_and_the_order_in_canonical_spelling(tickets: list[Ticket]) -> None:
    for ticket in tickets:
        category, product, order, urgency = ticket.summary.split(" | ")
        products = [span.text.casefold() for span in ticket.spans if span.label == "PRODUCT"]
        orders = [span.text.upper() for span in ticket.spans if span.label == "ORDER"]
        assert (category, urgency) == (ticket.category, ticket.urgency)
        assert [product.casefold()] == (products or ["-"])
        assert [order.replace("-", "")] == [text.replace("-", "").replace(" ", "") for text in orders] or order == "-"
        assert bool(orders) == (order != "-")


def test_every_category_urgency_and_question_turns_up(tickets: list[Ticket]) -> None:
    assert {ticket.category for ticket in tickets} == set(words.CATEGORIES)
    assert {ticket.urgency for ticket in tickets} == set(words.URGENCIES)
    assert {ticket.question for ticket in tickets} == set(QUESTIONS.values())


def test_grammars_are_filled_in_completely(tickets: list[Ticket]) -> None:
    assert not any(set("{}|()") & set(ticket.body) for ticket in tickets)


def test_text_holds_accents_emoji_and_other_scripts_in_composed_form(tickets: list[Ticket]) -> None:
    text = "".join(ticket.body for ticket in tickets)
    assert {"ü", "Ł", "🚨", "山"} <= set(text)
    assert unicodedata.is_normalized("NFC", text)


def test_some_tickets_are_long(tickets: list[Ticket]) -> None:
    assert 0.02 < sum(len(ticket.body) > 700 for ticket in tickets) / len(tickets) < 0.12


def test_a_ticket_is_the_same_whatever_was_made_before_it(tickets: list[Ticket]) -> None:
    assert make_ticket(17, seed=31) == tickets[17]


def test_another_seed_makes_other_tickets(tickets: list[Ticket]) -> None:
    others = {ticket.body for ticket in make_tickets(1500, seed=32)}
    assert not others & {ticket.body for ticket in tickets}


def test_a_row_gives_no_answer_away(tickets: list[Ticket]) -> None:
    assert set(row_of(tickets[0])) == {"ticket_id", "opened", "customer", "tags", "body", "question"}
