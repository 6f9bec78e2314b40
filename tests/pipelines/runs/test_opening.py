"""When a run starts Ray: while its job is still being opened, and not for a job that is known to be wrong, or may have nothing to do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from pipelines.errors import ClusterError, TaskError
from pipelines.job import Job
from pipelines.opened import OpenedJob
from pipelines.run import run
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.killing import processes_with
from tests.helpers.pipelines.running import job_of, short_folder, write_corpus

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

MISFIT = TaskError("task.text", "does not fit the checkpoint")


class WrongJob:
    """An opening that ends with an error, at once or after a while; it keeps whether Ray was up then."""

    def __init__(self, error: BaseException, *, is_slow: bool) -> None:
        self._error, self._is_slow = error, is_slow
        self.was_ray_up: bool | None = None
        self.is_closed = False

    def is_settled(self, timeout_s: float) -> bool:
        del timeout_s
        return not self._is_slow

    def finish(self) -> OpenedJob:
        self.was_ray_up = ray.is_initialized()
        raise self._error

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a cluster of the run's own keeps its files."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with short_folder() as folder:
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        yield folder


@pytest.fixture
def job(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Job:
    model, corpus = tiny_checkpoint("sequence-classification"), write_corpus(tmp_path / "t.jsonl", 20)
    return job_of(ClassifyTask(text="{{ body }}"), model=model, corpus=corpus, out=tmp_path / "out")


def assert_nothing_is_left(temp: Path, job: Job) -> None:
    assert not ray.is_initialized()
    assert not processes_with(str(temp))
    assert not Path(job.output.path, "lease.json").exists()


@pytest.mark.cluster("own")
def test_ray_starts_while_a_tokenizer_is_read_and_ends_with_what_is_found_wrong(job: Job, temp: Path) -> None:
    opening = WrongJob(MISFIT, is_slow=True)
    with pytest.raises(TaskError, match="does not fit"):
        run(job, address="local", opening=opening)
    assert (opening.was_ray_up, opening.is_closed) == (True, True)
    assert_nothing_is_left(temp, job)


@pytest.mark.faults
def test_an_interrupt_while_ray_is_up_and_the_job_is_not_opened_ends_the_run(job: Job, temp: Path) -> None:
    opening = WrongJob(KeyboardInterrupt(), is_slow=True)
    assert run(job, address="local", opening=opening).exit_status == 130
    assert (opening.was_ray_up, opening.is_closed) == (True, True)
    assert_nothing_is_left(temp, job)


def test_what_is_known_to_be_wrong_starts_no_ray(job: Job, temp: Path) -> None:
    opening = WrongJob(MISFIT, is_slow=False)
    with pytest.raises(TaskError, match="does not fit"):
        run(job, address="local", opening=opening)
    assert (opening.was_ray_up, opening.is_closed) == (False, True)
    assert list(temp.iterdir()) == []


def test_a_run_that_goes_on_is_opened_before_it_starts_ray(job: Job, temp: Path) -> None:
    """It may have nothing left to do."""
    out = Path(job.output.path)
    out.mkdir()
    (out / "run.json").write_text("{}")
    opening = WrongJob(MISFIT, is_slow=True)
    with pytest.raises(TaskError, match="does not fit"):
        run(job, address="local", opening=opening)
    assert opening.was_ray_up is False
    assert list(temp.iterdir()) == []


def test_an_address_that_nobody_listens_at_is_told_while_the_job_is_not_opened(job: Job, temp: Path) -> None:
    opening = WrongJob(MISFIT, is_slow=True)
    with pytest.raises(ClusterError, match="no process listens"):
        run(job, address="127.0.0.1:1", opening=opening)
    assert (opening.was_ray_up, opening.is_closed) == (None, True)
    assert_nothing_is_left(temp, job)
