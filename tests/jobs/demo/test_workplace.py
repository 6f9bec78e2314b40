"""The demo's folder is begun anew or gone on with, and nobody else's files are touched."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.demo.files import Corpus, make_corpus
from jobs.demo.workplace import Marker, close_workplace, open_workplace
from jobs.errors import UsageError

WANTED = Marker(num_tickets=20, seed=3)
RESULT = Path("summary/receipts/part-00000000.json")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(num_tickets=WANTED.num_tickets, seed=WANTED.seed)


@pytest.fixture
def folder(tmp_path: Path, corpus: Corpus) -> Path:
    """A demo in the middle: a corpus, and a result."""
    folder = tmp_path / "demo"
    open_workplace(folder, WANTED, corpus)
    (folder / RESULT).parent.mkdir(parents=True)
    (folder / RESULT).write_text("{}")
    return folder


def test_new_folder_gets_the_corpus(folder: Path) -> None:
    assert len(list((folder / "corpus").rglob("tickets-*"))) == 4


def test_interrupted_demo_keeps_its_results_and_its_untouched_corpus(folder: Path, corpus: Corpus) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    open_workplace(folder, WANTED, corpus)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_finished_demo_is_begun_anew(folder: Path, corpus: Corpus) -> None:
    close_workplace(folder, WANTED)
    open_workplace(folder, WANTED, corpus)
    assert not (folder / RESULT).exists()
    assert (folder / "corpus").exists()


def test_other_arguments_begin_anew(folder: Path, corpus: Corpus) -> None:
    open_workplace(folder, replace(WANTED, seed=4), corpus)
    assert not (folder / RESULT).exists()


def test_interruption_while_the_corpus_is_written_begins_anew(folder: Path, corpus: Corpus) -> None:
    (folder / "demo.json").write_text('{"num_tickets": 20, "seed": 3, "state": "writing"}')
    (folder / "corpus" / "jsonl" / "tickets-0.jsonl").unlink()
    open_workplace(folder, WANTED, corpus)
    assert (folder / "corpus" / "jsonl" / "tickets-0.jsonl").exists()


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not the demo's"):
        open_workplace(tmp_path, WANTED, corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
