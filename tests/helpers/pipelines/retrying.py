"""Runs and retries without engines: a row has a result if its number is among the good ones, and
is a dead letter if not."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import RowError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import InputSpec, Job, ModelSpec, OutputFormat, OutputSpec
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.ledger import Ledger
from pipelines.retry.choice import choose
from pipelines.retry.committer import RetryCommitter
from pipelines.retry.reader import RetryReader
from pipelines.retry.selection import Selection
from pipelines.rows.rows import FinishedUnit, UnitRows
from pipelines.rows.set_apart import with_failed_rows
from pipelines.tasks.generate import GenerateTask
from pipelines.units.listing import list_sources
from pipelines.units.numbering import Sink
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

NUM_ROWS, UNIT_ROWS = 30, 7
UNREADABLE = frozenset({4, 20})
"""Rows whose lines are no JSON, whatever is set."""
READABLE = frozenset(range(NUM_ROWS)) - UNREADABLE
KINDS = ("too_long", "null_value")

Good = Collection[int]


def kind_of(row: int) -> str:
    """Why a row fails that is not good."""
    return "malformed_json" if row in UNREADABLE else KINDS[row % 2]


def corpus() -> bytes:
    lines = (f"no json {n}" if n in UNREADABLE else json.dumps({"id": n, "text": f"row {n}"}) for n in range(NUM_ROWS))
    return "".join(f"{line}\n" for line in lines).encode()


def job_at(folder: Path, where: str, options: dict[str, Any], format: OutputFormat = "parquet") -> Job:
    """A job in `folder` whose input and output are at `where`, a path or URL with a slash at its
    end."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/config.json").write_text("{}")
    source = f"{where}in.jsonl"
    if options:
        system, key = Storage(options).resolve(source)
        system.pipe_file(key, corpus())
    else:
        Path(source).write_bytes(corpus())
    return Job(
        name="job",
        model=ModelSpec(path=str(folder / "model")),
        task=GenerateTask(prompt="{{ text }}"),
        input=InputSpec(paths=(source,), storage_options=options),
        output=OutputSpec(path=f"{where}out", format=format, storage_options=options),
        unit_rows=UNIT_ROWS,
    )


def at(job: Job, name: str) -> Job:
    """The same job into another folder beside its own."""
    return replace(job, output=replace(job.output, path=f"{job.output.path}-{name}"))


def computed(rows: UnitRows, good: Good) -> FinishedUnit:
    """What an engine would make of the rows."""
    numbers = rows.row_numbers.tolist()
    bad = {place: RowError(kind_of(row), f"row {row} is bad") for place, row in enumerate(numbers) if row not in good}
    left = with_failed_rows(rows, bad)
    return FinishedUnit(
        unit=rows.unit,
        carried=left.rows,
        results=pa.table({"label": [f"result {row}" for row in left.row_numbers.tolist()]}),
        failures=left.failures,
        prompt_tokens=10 * len(numbers),
        cached_tokens=2 * len(numbers),
        completion_tokens=len(numbers),
        seconds=0.5,
    )


def open_ledger(job: Job) -> Ledger:
    return Ledger.open(job, fingerprint_of(job, list_sources(job.input)), heartbeat_s=60)


def run(job: Job, good: Good, *, stop_after: int | None = None) -> list[int]:
    """A run, or what is left of one; the units that it committed."""
    with open_ledger(job) as ledger:
        if ledger.record is None:

            def make(sink: Sink) -> Any:
                files = list_sources(job.input)
                return plan_units(files, job.input, Columns(), unit_rows=UNIT_ROWS, sink=sink)

            ledger.write_plan(make)
        assert ledger.record is not None
        reader = UnitReader(schema=ledger.record.schema, storage=Storage.of(job.input))
        survey, done = ledger.survey(), []
        for unit in list(ledger.pending_units(survey))[:stop_after]:
            survey.files.add(ledger.committer().commit(computed(reader.read_unit(unit), good)))
            done.append(unit.index)
        ledger.sweep(survey)
        ledger.write_unreadable([])
        return done


@dataclass(kw_only=True)
class Tried:
    """What a retry did: the rows that it computed, by unit."""

    rows: dict[int, list[int]] = field(default_factory=dict)


def retry(
    job: Job,
    good: Good,
    selection: Selection | None = None,
    *,
    limit: int | None = None,
    generation: int = 0,
    before_commit: Callable[[], None] = lambda: None,
    store: Callable[[Store], Store] = lambda store: store,
) -> Tried:
    """A retry, unit by unit, as the operators of the graph do it; `store` is what it commits to in
    the place of the output's own."""
    tried = Tried()
    with open_ledger(job) as ledger:
        assert ledger.record is not None
        survey = ledger.survey()
        choice = choose(ledger.store, ledger.record, survey, selection or Selection(), limit=limit)
        committer = replace(ledger.committer(), store=store(ledger.store))
        reader = RetryReader(
            reader=UnitReader(schema=ledger.record.schema, storage=Storage.of(job.input)),
            committer=ledger.committer(),
            selection=choice.selection,
        )
        commit = RetryCommitter(committer=committer, selection=choice.selection, generation=generation).commit
        units = [unit for unit in ledger.pending_units(of_nothing(survey)) if unit.index in choice.units]
        for rows in reader.read_units(units):
            assert isinstance(rows, UnitRows)
            failed = [failure.row for failure in rows.failures]
            tried.rows[rows.unit.index] = sorted([*rows.row_numbers.tolist(), *failed])
            before_commit()
            survey.files.add(commit(computed(rows, good)))
        ledger.sweep(survey)
    return tried


def of_nothing(survey: Any) -> Any:
    """A survey of an output where nothing is committed: its units are all of the plan."""
    return replace(survey, is_committed=survey.is_committed & False)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a row is, by the files that receipts name: its result, or its dead letter's kind and
    attempts."""

    result: str | None = None
    kind: str | None = None
    attempts: int | None = None


def seen_in(job: Job) -> dict[int, Seen]:
    """Every row that is committed, read with pyarrow and json alone; a row that is there twice
    fails."""
    store, found = open_store(job.output), list[tuple[int, Seen]]()
    for name, _ in sorted(store.sizes("receipts")):
        receipt = json.loads(store.read(f"receipts/{name}") or b"")
        for row in results_in(store.read(receipt["data"]["name"]) or b"", job.output.format):
            found.append((row["id"], Seen(result=row["label"])))
        for line in (store.read(receipt["errors"]["name"]) or b"").splitlines():
            letter = json.loads(line)
            found.append((letter["row"], Seen(kind=letter["kind"], attempts=letter["attempts"])))
    assert len(dict(found)) == len(found)
    return dict(found)


def results_in(content: bytes, format: OutputFormat) -> list[dict[str, Any]]:
    if format == "parquet":
        return list(pq.read_table(pa.BufferReader(content)).to_pylist())
    return [json.loads(line) for line in content.splitlines()]


def files_of(job: Job) -> list[tuple[bytes | None, bytes | None]]:
    """The bytes of the two files of each unit, in order; there is nothing else in the two
    folders."""
    store = open_store(job.output)
    receipts = [json.loads(store.read(f"receipts/{name}") or b"") for name, _ in sorted(store.sizes("receipts"))]
    named = {receipt[folder]["name"] for receipt in receipts for folder in ("data", "errors")}
    assert named == {f"{folder}/{name}" for folder in ("data", "errors") for name, _ in store.sizes(folder)}
    return [(store.read(each["data"]["name"]), store.read(each["errors"]["name"])) for each in receipts]
