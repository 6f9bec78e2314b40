"""`millrace retry` killed at moments drawn from a seed, on real processes: what is tried again in
the end is what never failed."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.io.open_output import open_store
from pipelines.job import OutputSpec
from pipelines.ledger.check import check_run
from tests.helpers.pipelines.killing import ENGINE, WORKERS, Run, wait_until
from tests.helpers.pipelines.running import rows_in, short_folder, write_corpus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NUM_ROWS, UNIT_ROWS = 480, 8
LONG = range(3, NUM_ROWS, 4)
NUM_UNITS = NUM_ROWS // UNIT_ROWS
MOMENTS = sorted(random.Random(20262).sample(range(1, NUM_UNITS - 20), 3))
SHORT, LARGE = {"max_model_len": 64}, {"max_model_len": 512}


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


class Retries:
    """A run whose long rows have failed, which is copied to be retried, and one in which none
    did."""

    def __init__(self, folder: Path, model: Path, temp: Path) -> None:
        self._folder, self._model, self._temp = folder, model, temp
        long = {row: json.dumps({"id": row, "body": f"{row} refund order " * 12}).encode() for row in LONG}
        self._corpus = write_corpus(folder / "rows.jsonl", NUM_ROWS, bad=long)
        for name, engine in (("failed", SHORT), ("fresh", LARGE)):
            with Run(self._spec(name, engine), self.out(name), temp) as run:
                assert run.wait() == 0, run.output
        assert [letter["row"] for letter in rows_in(self.out("failed"), "errors")] == [*LONG]

    def out(self, name: str) -> Path:
        return self._folder / name

    def copy(self, name: str) -> Path:
        shutil.copytree(self.out("failed"), self.out(name))
        return self.out(name)

    def start(self, name: str) -> Run:
        arguments = ("retry", str(self.out(name)), "--set", "engine.max_model_len=512", "--kind", "too_long")
        return Run(self._folder / f"{name}.yaml", self.out(name), self._temp, arguments=arguments)

    def resume(self, name: str) -> Run:
        return Run(self._spec(name, SHORT), self.out(name), self._temp)

    def check(self, name: str) -> None:
        """All rows are those of the run in which none failed."""
        assert rows_in(self.out(name)) == rows_in(self.out("fresh"))
        assert rows_in(self.out(name), "errors") == []
        assert check_run(open_store(OutputSpec(path=str(self.out(name))))) == []

    def _spec(self, name: str, engine: dict[str, Any]) -> Path:
        spec = {
            "name": "retried",
            "model": {"path": str(self._model), "dtype": "float32"},
            "task": {"kind": "classify", "text": "{{ body }}"},
            "input": {"paths": [str(self._corpus)]},
            "output": {"path": str(self.out(name)), "format": "jsonl"},
            "engine": engine,
            "unit_rows": UNIT_ROWS,
        }
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path


@pytest.fixture(scope="module")
def retries(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path], temp: Path) -> Retries:
    model = tiny_checkpoint("sequence-classification", max_position_embeddings=512)
    return Retries(tmp_path_factory.mktemp("retries"), model, temp)


def num_retried(out: Path) -> int:
    receipts = [json.loads(path.read_bytes()) for path in (out / "receipts").iterdir()]
    return sum("generations" in receipt for receipt in receipts)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("is_resumed", [False, True], ids=["retried", "resumed"])
def test_a_killed_driver_loses_and_doubles_nothing(retries: Retries, moment: int, is_resumed: bool) -> None:
    """Whether the same retry comes next, or the run."""
    name = f"driver-{moment}-{is_resumed}"
    out = retries.copy(name)
    with retries.start(name) as run:
        wait_until(lambda: num_retried(out) >= moment or run.has_ended, f"{moment} units")
        run.kill_driver()
    if is_resumed:
        with retries.resume(name) as run:
            assert run.wait() == 0, run.output
        failed = {letter["row"] for letter in rows_in(out, "errors")}
        assert sorted(failed | {row["id"] for row in rows_in(out)}) == [*range(NUM_ROWS)]
        assert len(failed) + len(rows_in(out)) == NUM_ROWS
    with retries.start(name) as run:
        assert run.wait() == 0, run.output
    retries.check(name)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("titles", [ENGINE, WORKERS], ids=["engine", "workers"])
def test_killed_processes_lose_and_double_nothing(retries: Retries, moment: int, titles: tuple[str, ...]) -> None:
    name = f"below-{titles[0][5:9]}-{moment}"
    out = retries.copy(name)
    with retries.start(name) as run:
        wait_until(lambda: num_retried(out) >= moment or run.has_ended, f"{moment} units")
        run.kill_below(titles)
        assert run.wait() == 0, run.output
    retries.check(name)
    receipts = [json.loads(path.read_bytes()) for path in (out / "receipts").iterdir()]
    assert {each["epoch"] for each in receipts} == {2}
