"""Accuracy counts what is exactly right, and nothing else."""

from typing import Any

import pytest

from jobs.demo import score
from jobs.demo.corpus import Ticket, make_tickets

TICKETS = {ticket.ticket_id: ticket for ticket in make_tickets(40, seed=2)}
ANSWERED = next(ticket for ticket in TICKETS.values() if ticket.answer)
SILENT = next(ticket for ticket in TICKETS.values() if not ticket.answer)


def spans_of(ticket: Ticket) -> list[dict[str, object]]:
    return [{"start": span.start, "end": span.end, "label": span.label} for span in ticket.spans]


def test_right_rows_score_one() -> None:
    tickets = TICKETS.values()
    summaries = [{"ticket_id": ticket.ticket_id, "text": ticket.summary} for ticket in tickets]
    categories = [{"ticket_id": ticket.ticket_id, "label": ticket.category} for ticket in tickets]
    urgencies = [{"ticket_id": ticket.ticket_id, "label": ticket.urgency} for ticket in tickets]
    spans = [{"ticket_id": ticket.ticket_id, "spans": spans_of(ticket)} for ticket in tickets]
    assert score.summary_accuracy(summaries, TICKETS) == 1.0
    assert score.category_accuracy(categories, TICKETS) == 1.0
    assert score.urgency_accuracy(urgencies, TICKETS) == 1.0
    assert score.span_f1(spans, TICKETS) == 1.0


def test_nearly_right_is_wrong() -> None:
    row = {"ticket_id": ANSWERED.ticket_id, "text": ANSWERED.summary + " "}
    assert score.summary_accuracy([row], TICKETS) == 0.0


def test_span_with_one_wrong_offset_counts_as_missed_and_as_invented() -> None:
    ticket = next(ticket for ticket in TICKETS.values() if len(ticket.spans) == 2)
    spans = spans_of(ticket)
    spans[0]["end"] = ticket.spans[0].end + 1
    assert score.span_f1([{"ticket_id": ticket.ticket_id, "spans": spans}], TICKETS) == pytest.approx(0.5)


def test_answer_must_have_both_offsets_or_be_null_rightly() -> None:
    assert ANSWERED.answer is not None
    right = {"start": ANSWERED.answer.start, "end": ANSWERED.answer.end}
    rows: list[dict[str, Any]] = [
        {"ticket_id": ANSWERED.ticket_id, "answer": right},
        {"ticket_id": ANSWERED.ticket_id, "answer": {**right, "end": right["end"] - 1}},
        {"ticket_id": ANSWERED.ticket_id, "answer": None},
        {"ticket_id": SILENT.ticket_id, "answer": None},
    ]
    assert score.answer_accuracy(rows, TICKETS) == 0.5


def test_no_rows_score_nothing() -> None:
    assert score.summary_accuracy([], TICKETS) == 0.0
    assert score.span_f1([], TICKETS) == 0.0
