"""Result rows against the corpus's known answers: one number from 0 to 1 a job."""

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.demo.corpus import Ticket

Row = Mapping[str, Any]
Tickets = Mapping[str, Ticket]


def summary_accuracy(rows: Iterable[Row], tickets: Tickets) -> float:
    """The share of summaries that are the right one to the letter."""
    return _share(row["text"] == tickets[row["ticket_id"]].summary for row in rows)


def category_accuracy(rows: Iterable[Row], tickets: Tickets) -> float:
    """The share of right categories."""
    return _share(row["label"] == tickets[row["ticket_id"]].category for row in rows)


def urgency_accuracy(rows: Iterable[Row], tickets: Tickets) -> float:
    """The share of right urgencies."""
    return _share(row["label"] == tickets[row["ticket_id"]].urgency for row in rows)


def span_f1(rows: Iterable[Row], tickets: Tickets) -> float:
    """Micro F1 over all spans; a span counts only with both offsets and its label exactly right."""
    num_right = num_found = num_known = 0
    for row in rows:
        known = {(span.start, span.end, span.label) for span in tickets[row["ticket_id"]].spans}
        found = {(span["start"], span["end"], span["label"]) for span in row["spans"]}
        num_right, num_found, num_known = num_right + len(known & found), num_found + len(found), num_known + len(known)
    return 2 * num_right / (num_found + num_known) if num_found + num_known else 0.0


def answer_accuracy(rows: Iterable[Row], tickets: Tickets) -> float:
    """The share of answers with exactly the right offsets, or rightly null."""
    return _share(_found_place(row) == _known_place(tickets[row["ticket_id"]]) for row in rows)


def _found_place(row: Row) -> tuple[int, int] | None:
    return None if row["answer"] is None else (row["answer"]["start"], row["answer"]["end"])


def _known_place(ticket: Ticket) -> tuple[int, int] | None:
    return None if ticket.answer is None else (ticket.answer.start, ticket.answer.end)


def _share(verdicts: Iterable[bool]) -> float:
    """The share of True; 0 where there is nothing to judge."""
    counted = list(verdicts)
    return sum(counted) / len(counted) if counted else 0.0
