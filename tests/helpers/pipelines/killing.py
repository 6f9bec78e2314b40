"""Runs in processes of their own, as people start them, and ways to kill parts of them at a moment that is counted in committed units.

Only processes below one's own are ever looked at.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from models import Engine, SamplingParams
from pipelines.io.open_output import open_store
from pipelines.job import OutputSpec
from pipelines.ledger.check import check_run
from tests.helpers.pipelines.running import contents, rows_in, write_corpus

PATIENCE_S = 240.0
UNIT_ROWS = 8
GREEDY: Mapping[str, Any] = {"max_tokens": 6, "temperature": 0.0}
GENERATE: Mapping[str, object] = {"kind": "generate", "prompt": "{{ body }}", "sampling": dict(GREEDY)}
ENGINE = ("ray::EngineActor",)
WORKERS = (
    "ray::ReadUnitSource",
    "ray::MapWorker(MapBatches(AskEngines))",
    "ray::MapBatches(HandOver)",
    "ray::MapBatches(FinishAndCommit)",
    "ray::_map_task",
    "ray::IDLE",
)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Looks again and again, for as long as a very busy machine may need."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Process:
    """A process below a run: its id and title."""

    pid: int
    title: str


class Run:
    """`millrace run SPEC`, or what `arguments` say in its place, in a process group of its own, on
    a Ray cluster of its own with files in `temp`, or on this process's cluster at `address`. Ends
    with the context."""

    def __init__(
        self, spec: Path, out: Path, temp: Path, address: str | None = None, *, arguments: Sequence[str] = ()
    ) -> None:
        self._out, self._temp, self._address = out, temp, address
        self._log = (spec.parent / f"{spec.stem}-{time.monotonic_ns()}.log").open("w+")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jobs",
                *(arguments or ("run", str(spec))),
                *(("--address", address) if address else ()),
            ],
            env={**os.environ, "RAY_TMPDIR": str(temp)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.interrupt()
            self._process.wait(PATIENCE_S)
        self._log.close()
        if self._address is None:
            wait_until(lambda: not processes_with(str(self._temp)), "the run's cluster to be gone")

    @property
    def pid(self) -> int:
        """The id of the driver's process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    def wait(self) -> int:
        """The exit status, once the run has ended."""
        return self._process.wait(PATIENCE_S)

    @property
    def output(self) -> str:
        """What the run has printed so far."""
        return Path(self._log.name).read_text()

    @property
    def num_committed(self) -> int:
        """Receipts in the output folder."""
        folder = self._out / "receipts"
        return len(list(folder.iterdir())) if folder.exists() else 0

    def wait_for_commits(self, count: int) -> None:
        """Returns when that many units are committed, and while the run goes on."""
        wait_until(lambda: self.num_committed >= count or self._process.poll() is not None, f"{count} committed units")
        assert self._process.poll() is None, f"the run ended before {count} units were committed:\n{self.output}"

    def wait_for_plan(self) -> None:
        """Returns when the run is planned."""
        wait_until((self._out / "run.json").exists, "a plan")

    def kill_driver(self) -> None:
        """SIGKILL to the driver alone."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        """A signal to the driver alone."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def stand_still(self, seconds: float, *, with_cluster: bool) -> None:
        """SIGSTOP to the driver, as by a closed lid; to all processes below it too, as a machine that is moved. Then they go on."""
        processes = [
            self._process.pid,
            *([process.pid for process in below(self._process.pid)] if with_cluster else []),
        ]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in processes:
                os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(seconds)

    def kill_below(self, titles: Sequence[str]) -> list[Process]:
        """SIGKILL to every process of the run's cluster whose title starts with one of `titles`."""
        root = self._process.pid if self._address is None else os.getpid()
        found = [process for process in below(root) if process.title.startswith(tuple(titles))]
        for process in found:
            os.kill(process.pid, signal.SIGKILL)
        return found


def below(pid: int) -> Iterator[Process]:
    """All processes that descend from one."""
    parents = {int(path.name): _parent(path) for path in _process_folders()}
    for candidate in parents:
        ancestor: int | None = candidate
        while ancestor is not None and ancestor != pid:
            ancestor = parents.get(ancestor)
        if ancestor == pid and candidate != pid:
            yield Process(pid=candidate, title=_title(Path("/proc") / str(candidate)))


def processes_with(text: str) -> list[Process]:
    """Processes whose command line holds `text`."""
    found = [Process(pid=int(path.name), title=_title(path)) for path in _process_folders()]
    return [process for process in found if text in process.title]


def _process_folders() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _parent(folder: Path) -> int | None:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _title(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class Bench:
    """One job in float32, run into folders of its own; on this process's cluster, where `address` names it. Rows with a score under
    `below` go on to the model `further`, if there is one."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        temp: Path,
        *,
        task: Mapping[str, object],
        num_rows: int,
        address: str | None = None,
        further: Path | None = None,
        below: float = 0.75,
    ) -> None:
        self._folder, self._model, self.temp, self._task, self._address = folder, model, temp, task, address
        self.further, self._below = further, below
        self._corpus = write_corpus(folder / "rows.jsonl", num_rows)

    def start(self, name: str) -> Run:
        """Starts the job into the folder `name`, or goes on with it there."""
        return Run(self.spec(name), self.out(name), self.temp, self._address)

    def spec(self, name: str) -> Path:
        """The file that describes the job into the folder `name`."""
        spec = {
            "name": "killed",
            **self._models(),
            "task": dict(self._task),
            "input": {"paths": [str(self._corpus)]},
            "output": {"path": str(self.out(name)), "format": "jsonl"},
            "engine": {"max_num_seqs": 16},
            "unit_rows": UNIT_ROWS,
        }
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    def _models(self) -> dict[str, object]:
        model = {"path": str(self._model), "dtype": "float32"}
        if self.further is None:
            return {"model": model}
        further = {"path": str(self.further), "dtype": "float32"}
        return {"cascade": [{"model": model, "until": {"score": self._below}}, {"model": further}]}

    def out(self, name: str) -> Path:
        """Where the job writes."""
        return self._folder / name

    def check(self, name: str, expected: Mapping[str, bytes]) -> None:
        """The output is what its receipts say, and the very bytes that are expected."""
        self._check_receipts(name)
        assert contents(self.out(name)) == expected

    def check_texts(self, name: str) -> None:
        """The output is what its receipts say, and a generation job's texts are those of an engine in this process."""
        self._check_receipts(name)
        prompts = [json.loads(line)["body"] for line in self._corpus.read_text().splitlines()]
        with Engine.from_pretrained(self._model, dtype="float32") as engine:
            expected = [output.text for output in engine.generate(prompts, SamplingParams(**GREEDY))]
        assert [row["text"] for row in rows_in(self.out(name))] == expected

    def _check_receipts(self, name: str) -> None:
        assert check_run(open_store(OutputSpec(path=str(self.out(name)), format="jsonl"))) == []
