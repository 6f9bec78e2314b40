"""The corpus as files: the same tickets as Parquet and as JSONL, with a few rows among them that no job can use.

A corpus knows how many rows of each format must fail, so that a run's dead letters can be counted against what was planted.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.corpus import Ticket, make_ticket, make_tickets, row_of

CorpusFormat = Literal["parquet", "jsonl"]

HUGE_TICKETS = 3
NULL_TEXTS = 4
MALFORMED = ('{"ticket_id": "T-cut-off", "body": "The line ends here', "no JSON at all", '["a", "list"]')
NOT_UTF8 = b'{"ticket_id": "T-latin-1", "body": "Gr\xfc\xdfe aus Graz"}'

_COLUMNS: dict[str, pa.DataType] = {
    "ticket_id": pa.string(),
    "opened": pa.timestamp("ms", tz="UTC"),
    "customer": pa.struct([("city", pa.string()), ("channel", pa.string())]),
    "tags": pa.list_(pa.string()),
    "body": pa.string(),
    "question": pa.string(),
}
SCHEMA = pa.schema(_COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What a corpus holds: every good ticket by id, and how many rows of each format must become dead letters.

    The last `HUGE_TICKETS` are too long for a model that reads a text in one piece; models that read windows take them.
    """

    tickets: Mapping[str, Ticket]
    unusable: Mapping[CorpusFormat, int]


def make_corpus(*, num_tickets: int, seed: int) -> Corpus:
    """`num_tickets` ordinary tickets and the huge ones; equal arguments give equal corpora."""
    huge = (make_ticket(num_tickets + index, seed=seed, ramblings=60) for index in range(HUGE_TICKETS))
    return Corpus(
        tickets={ticket.ticket_id: ticket for ticket in (*make_tickets(num_tickets, seed=seed), *huge)},
        unusable={"parquet": NULL_TEXTS, "jsonl": NULL_TEXTS + len(MALFORMED) + 1},
    )


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Writes `parquet/tickets-{0,1}.parquet` and `jsonl/tickets-{0.jsonl,1.jsonl.gz}` into `folder`, bad rows included."""
    rows = list(_with_null_texts(list(corpus.tickets.values())))
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    (folder / "parquet").mkdir(parents=True, exist_ok=True)
    for part, half in enumerate(halves):
        table = pa.Table.from_pylist(half, schema=SCHEMA)
        pq.write_table(table, folder / "parquet" / f"tickets-{part}.parquet", row_group_size=1000)
    (folder / "jsonl").mkdir(exist_ok=True)
    plain, packed = map(_json_lines, halves)
    plain[len(plain) // 2 : len(plain) // 2] = [line.encode() for line in MALFORMED] + [NOT_UTF8]
    (folder / "jsonl" / "tickets-0.jsonl").write_bytes(b"\n".join(plain) + b"\n")
    (folder / "jsonl" / "tickets-1.jsonl.gz").write_bytes(gzip.compress(b"\n".join(packed) + b"\n", mtime=0))


def _with_null_texts(tickets: Sequence[Ticket]) -> Iterator[dict[str, Any]]:
    """The tickets as rows, with NULL_TEXTS rows that have no body spread evenly among them."""
    every = len(tickets) // NULL_TEXTS
    for number, ticket in enumerate(tickets):
        row = row_of(ticket)
        if number % every == every // 2 and number // every < NULL_TEXTS:
            yield {**row, "ticket_id": f"{ticket.ticket_id}-empty", "body": None}
        yield row


def _json_lines(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    return [json.dumps({**row, "opened": row["opened"].isoformat()}, ensure_ascii=False).encode() for row in rows]
