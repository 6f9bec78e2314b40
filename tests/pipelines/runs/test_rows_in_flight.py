"""Progress moves inside a unit, and an engine that dies inside one takes its part back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.ledger.progress import Progress
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.fake_engines import NUM_FIRST, halfway_engine
from tests.helpers.pipelines.running import drive, job_of, rows_in, write_corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

NUM_ROWS = 40


class _Watched(list[Progress]):
    """Leaves the marks that the engines wait for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def append(self, progress: Progress) -> None:
        super().append(progress)
        if progress.rows_in_flight:
            (self._folder / "seen").touch()
        elif (self._folder / "seen").exists():
            (self._folder / "lost").touch()


def test_progress_moves_before_the_first_commit_and_takes_back_what_a_dead_engine_had(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_checkpoint("sequence-classification").iterdir():
        (model / path.name).symlink_to(path)
    corpus, seen = write_corpus(tmp_path / "rows.jsonl", NUM_ROWS), _Watched(model)
    task = ClassifyTask(text="{{ body }}")
    job = job_of(task, model=model, corpus=corpus, out=tmp_path / "out", unit_rows=NUM_ROWS)
    assert drive(job, make_engine=halfway_engine, seen=seen).exit_status == 0
    before = [progress.rows_in_flight for progress in seen if not progress.rows_done]
    first = before.index(NUM_FIRST)
    assert set(before[:first]) == {0}
    assert 0 in before[first:]
    assert (seen[-1].rows_done, seen[-1].rows_in_flight) == (NUM_ROWS, 0)
    assert len(rows_in(tmp_path / "out")) == NUM_ROWS
