"""The corpus as files: both formats hold the same tickets, and exactly the bad rows that were planted."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.demo.corpus import row_of
from jobs.demo.files import HUGE_TICKETS, Corpus, make_corpus, write_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    corpus = make_corpus(num_tickets=120, seed=5)
    write_corpus(corpus, folder)
    return corpus


def lines(folder: Path) -> list[bytes]:
    packed = gzip.decompress((folder / "jsonl" / "tickets-1.jsonl.gz").read_bytes())
    return ((folder / "jsonl" / "tickets-0.jsonl").read_bytes() + packed).splitlines()


def is_good(line: bytes) -> bool:
    try:
        row: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and row["body"] is not None


def test_parquet_holds_every_ticket_and_the_rows_without_text(folder: Path, corpus: Corpus) -> None:
    rows = pq.read_table(folder / "parquet").to_pylist()
    assert [row for row in rows if row["body"] is not None] == [row_of(ticket) for ticket in corpus.tickets.values()]
    assert sum(row["body"] is None for row in rows) == corpus.unusable["parquet"]


def test_jsonl_holds_the_same_tickets_and_lines_nobody_can_read(folder: Path, corpus: Corpus) -> None:
    good = [json.loads(line) for line in lines(folder) if is_good(line)]
    assert [(row["ticket_id"], row["body"]) for row in good] == [
        (ticket_id, ticket.body) for ticket_id, ticket in corpus.tickets.items()
    ]
    assert sum(not is_good(line) for line in lines(folder)) == corpus.unusable["jsonl"]


def test_huge_tickets_are_at_the_end(corpus: Corpus) -> None:
    lengths = [len(ticket.body) for ticket in corpus.tickets.values()]
    assert min(lengths[-HUGE_TICKETS:]) > 2500 > max(lengths[:-HUGE_TICKETS])


def test_same_arguments_write_the_same_bytes(tmp_path: Path, folder: Path, corpus: Corpus) -> None:
    write_corpus(make_corpus(num_tickets=len(corpus.tickets) - HUGE_TICKETS, seed=5), tmp_path)
    written = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert len(written) == 4
    assert all(path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes() for path in written)
