"""Every family through whole runs, with real engines."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.config_types import Head
from pipelines.job import ClassifyTask, ExtractTask, Task
from tests.pipelines.running import GREEDY, drive, job_of, ray_cluster, rows_in, write_corpus
from tests.tiny_checkpoints import FAMILIES

TASKS: dict[str, tuple[Head, Task]] = {
    "generate": ("causal", GREEDY),
    "classify": ("sequence-classification", ClassifyTask(text="{{ body }}")),
    "extract": ("token-classification", ExtractTask(text="{{ body }}")),
}
NUM_ROWS = 40
WINDOWS = {"phi3": {"sliding_window": 8}}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with ray_cluster():
        yield


CASES = [
    *((family, "generate") for family in FAMILIES if family != "qwen3"),
    ("smollm3", "classify"),
    ("helium", "extract"),
    ("zamba2", "classify"),
    ("phi3", "extract"),
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_family_answers_every_row(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, family: str, kind: str
) -> None:
    head, task = TASKS[kind]
    corpus = write_corpus(tmp_path / "rows.jsonl", NUM_ROWS)
    model = tiny_checkpoint(head, family=family, max_position_embeddings=256, **WINDOWS.get(family, {}))
    job = job_of(task, model=model, corpus=corpus, out=tmp_path / "one", unit_rows=16)
    assert drive(job).exit_status == 0
    assert len(rows_in(tmp_path / "one")) == NUM_ROWS
