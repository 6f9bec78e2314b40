"""The demo's folder: begun anew, or continued after an interruption; a folder of anything else is
refused."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.demo.files import Corpus, write_corpus
from jobs.errors import UsageError

MARKER = "demo.json"
CORPUS = "corpus"


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """What says that a folder is the demo's: its arguments and how far it got."""

    num_tickets: int
    seed: int
    state: Literal["writing", "running", "finished"] = "writing"


def open_workplace(folder: Path, wanted: Marker, corpus: Corpus) -> None:
    """Makes `folder` hold the corpus and the committed units of an interrupted demo with the same arguments, and else no results.

    Raises:
        UsageError: the folder holds something else.
    """
    found = _read(folder)
    if found == replace(wanted, state="running"):
        return
    if found is None and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something that is not the demo's; give an empty or a new folder with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write(folder, wanted)
    write_corpus(corpus, folder / CORPUS)
    _write(folder, replace(wanted, state="running"))


def close_workplace(folder: Path, wanted: Marker) -> None:
    """Says that nothing is left to do, so that the next demo begins anew."""
    _write(folder, replace(wanted, state="finished"))


def _read(folder: Path) -> Marker | None:
    path = folder / MARKER
    return Marker(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _write(folder: Path, marker: Marker) -> None:
    """In one step, so that a marker is whole or absent."""
    draft = folder / f"{MARKER}.tmp"
    draft.write_text(json.dumps(asdict(marker)) + "\n", encoding="utf-8")
    draft.replace(folder / MARKER)
