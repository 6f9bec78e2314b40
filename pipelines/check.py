"""Verifying a run's output: every row of the plan exactly once, every byte the one that was committed.

`check_run(open_store(output)) -> list[Flaw]`, empty if all is well. It reads everything and changes nothing, so it may run beside a
run, whose missing units it then reports.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.job import OutputFormat
from pipelines.ledger import UNITS, UNREADABLE
from pipelines.receipts import DATA, ERRORS, RECEIPTS, Receipt, Shard, data_name, errors_name, receipt_name, unit_of
from pipelines.run_record import RUN, RunRecord, read_record
from pipelines.store import Store
from pipelines.unit_table import iter_units
from pipelines.units import Unit

_READERS = 8
_UNITS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """Something wrong with an output: the unit it concerns, None if it is none in particular, and what it is."""

    unit: int | None
    message: str

    def __str__(self) -> str:
        return self.message if self.unit is None else f"unit {self.unit}: {self.message}"


def check_run(store: Store) -> list[Flaw]:
    """Finds everything that is wrong with the output in `store`.

    Raises:
        OutputError: it cannot be read.
    """
    record = read_record(store)
    if record is None:
        return [Flaw(unit=None, message=f"{store.location} has no {RUN}: no run was planned there to its end")]
    return [
        *_plan_flaws(store, record),
        *_unit_flaws(store, _format(record)),
        *_stray_flaws(store, record),
        *_unreadable_flaws(store),
    ]


def _format(record: RunRecord) -> OutputFormat:
    return "jsonl" if record.spec["output"]["format"] == "jsonl" else "parquet"


def _plan_flaws(store: Store, record: RunRecord) -> Iterator[Flaw]:
    """Whether the units number every row of the plan exactly once."""
    num_units = num_rows = next_row = 0
    path = None
    with store.open(UNITS) as file:
        for unit in iter_units(file):
            if unit.path != path:
                path, next_row = unit.path, 0
            if unit.index != num_units or unit.first_row != next_row or unit.num_rows < 1:
                yield Flaw(unit=unit.index, message=f"{UNITS} does not continue the unit before it")
            num_units += 1
            num_rows += unit.num_rows
            next_row = unit.first_row + unit.num_rows
    if (num_units, num_rows) != (record.plan.num_units, record.plan.num_rows):
        planned = f"{record.plan.num_units} units and {record.plan.num_rows} rows"
        yield Flaw(unit=None, message=f"{UNITS} has {num_units} units and {num_rows} rows, {RUN} says {planned}")


def _unit_flaws(store: Store, format: OutputFormat) -> Iterator[Flaw]:
    check = partial(_check_unit, store, format)
    with store.open(UNITS) as file, ThreadPoolExecutor(_READERS) as readers:
        units = iter_units(file)
        while batch := list(islice(units, _UNITS_PER_BATCH)):
            for messages, unit in zip(readers.map(check, batch), batch, strict=True):
                yield from (Flaw(unit=unit.index, message=message) for message in messages)


def _check_unit(store: Store, format: OutputFormat, unit: Unit) -> list[str]:
    content = store.read(receipt_name(unit.index))
    if content is None:
        return ["not committed: it has no receipt"]
    try:
        receipt = Receipt.from_json(content)
    except ValueError as error:
        return [f"not committed: {receipt_name(unit.index)} is damaged: {error}"]
    data, errors = data_name(unit.index, format), errors_name(unit.index)
    flaws = list(_receipt_flaws(receipt, unit))
    flaws += _shard_flaws(store, data, receipt.data, lambda content: _data_flaws(content, format, receipt, data))
    flaws += _shard_flaws(store, errors, receipt.errors, lambda content: _error_flaws(content, unit, receipt, errors))
    return flaws


def _receipt_flaws(receipt: Receipt, unit: Unit) -> Iterator[str]:
    if (receipt.unit, receipt.num_rows) != (unit.index, unit.num_rows):
        yield f"its receipt is of unit {receipt.unit} with {receipt.num_rows} rows, {unit.num_rows} were planned"
    if receipt.num_written + receipt.num_failed != unit.num_rows:
        yield f"{unit.num_rows} rows went in, {receipt.num_written} were written and {receipt.num_failed} failed"


def _shard_flaws(store: Store, name: str, shard: Shard, look: Callable[[bytes], Iterator[str]]) -> Iterator[str]:
    content = store.read(name)
    if content is None:
        yield f"{name} is missing"
    elif len(content) != shard.num_bytes:
        yield f"{name} has {len(content)} bytes, its receipt says {shard.num_bytes}"
    elif hashlib.sha256(content).hexdigest() != shard.sha256:
        yield f"{name} is not what was committed: its hash is not the receipt's"
    else:
        yield from look(content)


def _data_flaws(content: bytes, format: OutputFormat, receipt: Receipt, name: str) -> Iterator[str]:
    try:
        num_rows = content.count(b"\n") if format == "jsonl" else pq.read_metadata(pa.BufferReader(content)).num_rows
    except pa.ArrowException as error:
        yield f"{name} is no Parquet: {error}"
        return
    if num_rows != receipt.num_written:
        yield f"{name} has {num_rows} rows, its receipt says {receipt.num_written}"


def _error_flaws(content: bytes, unit: Unit, receipt: Receipt, name: str) -> Iterator[str]:
    try:
        rows = [orjson.loads(line)["row"] for line in content.splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        yield f"{name} holds a line that is no dead letter: {error!r}"
        return
    if len(rows) != receipt.num_failed:
        yield f"{name} has {len(rows)} dead letters, its receipt says {receipt.num_failed}"
    if len(set(rows)) != len(rows):
        yield f"{name} has a row twice"
    if any(not unit.first_row <= row < unit.first_row + unit.num_rows for row in rows):
        yield f"{name} has a row of another unit"


def _stray_flaws(store: Store, record: RunRecord) -> Iterator[Flaw]:
    """Files that a reader of the folder would take for results and that no unit accounts for."""
    names: dict[str, Callable[[int], str]] = {
        DATA: lambda unit: data_name(unit, _format(record)),
        ERRORS: errors_name,
        RECEIPTS: receipt_name,
    }
    for folder, name_of in names.items():
        for name, _ in store.sizes(folder):
            unit = unit_of(name)
            is_ours = unit is not None and unit < record.plan.num_units and name_of(unit) == f"{folder}/{name}"
            if not is_ours and f"{folder}/{name}" != UNREADABLE:
                yield Flaw(unit=None, message=f"{folder}/{name} belongs to no unit of this run")


def _unreadable_flaws(store: Store) -> Iterator[Flaw]:
    for line in (store.read(UNREADABLE) or b"").splitlines():
        listed = orjson.loads(line)
        yield Flaw(unit=listed["unit"], message=f"could not be read: {listed['message']}")
