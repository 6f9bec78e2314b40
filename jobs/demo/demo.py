"""`millrace demo`: a fresh corpus, five real jobs over it on one cluster, and their answers measured against the known ones.

Each job is a spec of `jobs/demo/specs`, run as `millrace run` runs it. The corpus has another seed than the training had.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import orjson
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.demo import CHECKPOINTS, SPECS, score
from jobs.demo.files import HUGE_TICKETS, Corpus, CorpusFormat, make_corpus
from jobs.demo.workplace import CORPUS, Marker, close_workplace, open_workplace
from jobs.report.report import write_report
from jobs.show.progress import progress_display, speed
from jobs.show.terminal import drawing_on
from jobs.spec.job import LoadedSpec, load_spec
from jobs.spec.preflight import SpecCheck
from pipelines.cluster.connect import connected
from pipelines.job import EngineSpec
from pipelines.ledger.progress import Progress
from pipelines.run import run

DEFAULT_OUT = Path("out/demo")
DEFAULT_TICKETS = 3000
DEFAULT_SEED = 2026
MAX_MESSAGE = 56

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoJob:
    """A job of the demo: its spec's name, what it reads, how its answers are measured and how good they must be.

    A job that `reads_windows` takes the huge tickets too; the others make dead letters of them.
    """

    name: str
    task: str
    checkpoint: str
    format: CorpusFormat
    reads_windows: bool
    measure: str
    accuracy: Callable[[Rows, Mapping[str, Any]], float]
    floor: float


JOBS = (
    DemoJob(
        name="summary",
        task="generate",
        checkpoint="causal",
        format="parquet",
        reads_windows=False,
        measure="exact line",
        accuracy=score.summary_accuracy,
        floor=0.93,
    ),
    DemoJob(
        name="urgency",
        task="classify",
        checkpoint="causal",
        format="jsonl",
        reads_windows=False,
        measure="right label",
        accuracy=score.urgency_accuracy,
        floor=0.95,
    ),
    DemoJob(
        name="category",
        task="classify",
        checkpoint="sequence-classification",
        format="jsonl",
        reads_windows=False,
        measure="right label",
        accuracy=score.category_accuracy,
        floor=0.95,
    ),
    DemoJob(
        name="entities",
        task="extract",
        checkpoint="token-classification",
        format="parquet",
        reads_windows=True,
        measure="span F1",
        accuracy=score.span_f1,
        floor=0.95,
    ),
    DemoJob(
        name="answer",
        task="extract",
        checkpoint="question-answering",
        format="parquet",
        reads_windows=True,
        measure="exact or null",
        accuracy=score.answer_accuracy,
        floor=0.95,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What became of a job. `problems` is empty if everything is as it should be."""

    job: DemoJob
    progress: Progress
    accuracy: float
    dead_letters: Sequence[Mapping[str, Any]]
    problems: tuple[str, ...]


def run_demo(
    *, out: Path = DEFAULT_OUT, num_tickets: int = DEFAULT_TICKETS, seed: int = DEFAULT_SEED, address: str | None = None
) -> int:
    """Runs the demo in `out` and prints what came of it; a demo that was interrupted is gone on with.

    Returns the exit status: 0 if every job ended well, failed exactly the bad rows and was accurate enough; else that of the job
    that did not end well, or 1.

    Raises:
        UsageError: `out` holds something else.
    """
    console, started = Console(file=drawing_on(sys.stdout)), time.monotonic()
    marker = Marker(num_tickets=num_tickets, seed=seed)
    corpus = make_corpus(num_tickets=num_tickets, seed=seed)
    open_workplace(out, marker, corpus)
    console.print(f"{len(corpus.tickets):,} made-up support tickets, with some bad rows: {out / CORPUS}", markup=False)
    outcomes = []
    with connected([EngineSpec()], address):
        for job in JOBS:
            console.print(f"{job.name}: {job.task} with the {job.checkpoint} checkpoint from {job.format}")
            spec = _load(job, out)
            status, progress = _run(spec, console)
            if status != 0:
                return status
            outcomes.append(_outcome(job, corpus, Path(spec.job.output.path), progress))
    console.print(results_table(outcomes))
    console.print(dead_letters_table(outcomes))
    problems = [f"{outcome.job.name}: {problem}" for outcome in outcomes for problem in outcome.problems]
    for problem in problems:
        console.print(problem, style="red", markup=False)
    close_workplace(out, marker)
    seconds = time.monotonic() - started
    console.print(f"{seconds:.0f} s in all; results, dead letters and a report.html a job: {out}", markup=False)
    return 1 if problems else 0


def _load(job: DemoJob, out: Path) -> LoadedSpec:
    """The job's spec, pointed at the demo's folders."""
    ending = "*.parquet" if job.format == "parquet" else "*.jsonl*"
    values = {
        "model.path": str(CHECKPOINTS / job.checkpoint),
        "input.paths": [str(out / CORPUS / job.format / ending)],
        "output.path": str(out / job.name),
    }
    return load_spec(
        SPECS / f"{job.name}.yaml", overrides=[f"{key}={json.dumps(value)}" for key, value in values.items()]
    )


def _run(spec: LoadedSpec, console: Console) -> tuple[int, Progress]:
    """Runs a job on the cluster that is connected and writes its report; the exit status and the last numbers."""
    with closing(SpecCheck(spec)) as check, progress_display(sys.stderr) as show:
        summary = run(spec.job, on_progress=show, opening=check)
    write_report(spec.job.output)
    if summary.exit_status != 0:
        console.print(summary.message, style="red", markup=False)
    return summary.exit_status, summary.progress


def _outcome(job: DemoJob, corpus: Corpus, output: Path, progress: Progress) -> DemoResult:
    rows = _results(output / "data")
    dead_letters = [orjson.loads(line) for line in _lines(output / "errors")]
    accuracy = job.accuracy(rows, corpus.tickets)
    num_huge = 0 if job.reads_windows else HUGE_TICKETS
    good, bad = len(corpus.tickets) - num_huge, corpus.unusable[job.format] + num_huge
    problems = []
    if (len(rows), len(dead_letters)) != (good, bad):
        problems.append(f"{len(rows)} rows were answered and {len(dead_letters)} failed; it should be {good} and {bad}")
    if accuracy < job.floor:
        problems.append(f"accuracy is {accuracy:.1%}; at least {job.floor:.0%} is expected")
    return DemoResult(
        job=job, progress=progress, accuracy=accuracy, dead_letters=dead_letters, problems=tuple(problems)
    )


def _results(data: Path) -> list[dict[str, Any]]:
    """Every result row of a job, whatever the format."""
    tables = [pq.read_table(path).to_pylist() for path in sorted(data.glob("part-*.parquet"))]
    rows: list[dict[str, Any]] = [row for table in tables for row in table]
    return rows + [orjson.loads(line) for line in _lines(data)]


def _lines(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("part-*.jsonl")):
        yield from path.read_bytes().splitlines()


def results_table(outcomes: Sequence[DemoResult]) -> Table:
    """One line a job: how much, how fast, how right."""
    table = Table(title="What the jobs did", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("job", "task"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rows", "failed", "rows/s", "tokens/s", "accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("measured by", no_wrap=True)
    for outcome in outcomes:
        job, progress = outcome.job, outcome.progress
        table.add_row(
            job.name,
            job.task,
            f"{progress.rows_done:,}",
            f"{progress.rows_failed:,}",
            speed(progress.rows_per_s),
            speed(progress.tokens_per_s),
            f"[{'red' if outcome.accuracy < job.floor else 'green'}]{outcome.accuracy:.1%}[/]",
            job.measure,
        )
    return table


def dead_letters_table(outcomes: Sequence[DemoResult]) -> Table:
    """One line per kind of failure: its rows in all jobs together, and what the first of them
    says."""
    letters = [letter for outcome in outcomes for letter in outcome.dead_letters]
    messages = {letter["kind"]: letter["message"] for letter in reversed(letters)}
    table = Table(title="Dead letters of all jobs", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("kind", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("such as")
    for kind, number in sorted(Counter(letter["kind"] for letter in letters).items()):
        table.add_row(kind, f"{number:,}", Text(shorten(messages[kind], MAX_MESSAGE, placeholder=" …")))
    return table
