"""Verifying a run's output: every row of the plan exactly once, every byte the one that was
committed, nothing beside it.

`check_run(open_store(output)) -> list[Flaw]`, empty if all is well. It reads everything and
changes nothing, so it may run beside a run, whose missing units it then reports, and files that
are about to be committed. What is committed under it is looked at again. `pipelines.ledger.repair`
removes what a flaw says can go.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DamageError, LeaseError, RowError
from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.formats.json_line import parse_line
from pipelines.io.outputs import Store
from pipelines.job import OutputFormat
from pipelines.ledger.batch_files import batch_file_faults
from pipelines.ledger.committed_files import CommittedFiles, FoundFiles, left_over
from pipelines.ledger.lease import read_lease
from pipelines.ledger.part_names import ending_of
from pipelines.ledger.planned_units import planned_units, rows_of_units
from pipelines.ledger.receipts import (
    DATA,
    ERRORS,
    RECEIPTS,
    Receipt,
    Shard,
    check_planned,
    receipt_name,
    unit_of_receipt,
)
from pipelines.ledger.run_record import RUN, RunRecord, read_record
from pipelines.ledger.unreadable import UNREADABLE, read_unreadable
from pipelines.rows.unit import Unit

_READERS = 8
_UNITS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """Something wrong with an output: the unit it concerns (None: no single unit), and what it is.

    `removable` is the file that a repair removes because of it, None if a repair can do nothing;
    `is_mended_so` tells whether that mends it, or a run has to compute something.
    """

    unit: int | None
    message: str
    removable: str | None = None
    is_mended_so: bool = False

    def __str__(self) -> str:
        return self.message if self.unit is None else f"unit {self.unit}: {self.message}"


def check_run(store: Store) -> list[Flaw]:
    """Finds everything that is wrong with the output in `store`.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        record = read_record(store)
        if record is None:
            return [Flaw(unit=None, message=f"{store.location} has no {RUN}: no run was planned there to its end")]
        unit_rows = rows_of_units(store, record)
    except DamageError as error:  # without a plan there is nothing to compare with
        return [Flaw(unit=None, message=str(error))]
    files = CommittedFiles(len(unit_rows))
    unit_flaws = list(_unit_flaws(store, record, files))
    return [
        *_lease_flaws(store),
        *unit_flaws,
        *([] if unit_flaws else _batch_flaws(store, record)),
        *_stray_flaws(store, record, files),
        *_unreadable_flaws(store),
    ]


def _lease_flaws(store: Store) -> Iterator[Flaw]:
    try:
        read_lease(store)
    except LeaseError as error:
        yield Flaw(unit=None, message=str(error))


def _unit_flaws(store: Store, record: RunRecord, files: CommittedFiles) -> Iterator[Flaw]:
    """What is wrong with units. Has the files of their receipts count in `files`."""
    check = partial(_check_unit, store, record)
    units = planned_units(store, record)
    with ThreadPoolExecutor(_READERS) as readers:
        while batch := list(islice(units, _UNITS_PER_BATCH)):
            for checked in readers.map(check, batch):
                if checked.receipt is not None:
                    files.add(checked.receipt)
                yield from checked.flaws


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """A unit's receipt, if it has one that can be read, and what is wrong."""

    receipt: Receipt | None
    flaws: tuple[Flaw, ...]


def _check_unit(store: Store, record: RunRecord, unit: Unit) -> _Checked:
    """Once more if something is wrong and the receipt is another by now: the unit was committed
    anew under the check."""
    name = receipt_name(unit.index)
    content = store.read(name)
    while True:
        checked = _checked(store, record, unit, content)
        now = store.read(name) if checked.flaws else content
        if now == content:
            return checked
        content = now


def _checked(store: Store, record: RunRecord, unit: Unit, content: bytes | None) -> _Checked:
    """A unit by what its receipt holds."""
    name, format = receipt_name(unit.index), record.format
    if content is None:
        return _Checked(receipt=None, flaws=(Flaw(unit=unit.index, message="not committed: it has no receipt"),))
    receipt = None
    try:
        receipt = Receipt.from_json(content, format)
        check_planned(receipt, unit.index, unit.num_rows)
        _check_generations(store, record, unit, receipt)
        messages = list(_file_flaws(store, format, unit, receipt))
    except ValueError as error:
        messages = [f"not committed: {name} is damaged: {error}"]
    return _Checked(
        receipt=receipt,
        flaws=tuple(Flaw(unit=unit.index, message=message, removable=name) for message in messages),
    )


def _check_generations(store: Store, record: RunRecord, unit: Unit, receipt: Receipt) -> None:
    """Raises ValueError if rows of another unit are of a later generation, or of one that there is
    not."""
    rows = range(unit.first_row, unit.first_row + unit.num_rows)
    for each in receipt.generations:
        if any(row not in rows for row in each.rows):
            raise ValueError(f"rows of another unit are of generation {each.generation}")
        if each.generation > len(record.generations):  # a retry may have begun since
            record = read_record(store) or record
        if not 1 <= each.generation <= len(record.generations):
            raise ValueError(
                f"it names generation {each.generation}, and {RUN} has {len(record.generations)} later ones"
            )


def _file_flaws(store: Store, format: OutputFormat, unit: Unit, receipt: Receipt) -> Iterator[str]:
    data, errors = receipt.data, receipt.errors
    yield from _shard_flaws(store, data, lambda content: _data_flaws(content, format, receipt))
    yield from _shard_flaws(store, errors, lambda content: _error_flaws(content, unit, receipt))


def _shard_flaws(store: Store, shard: Shard, look: Callable[[bytes], Iterator[str]]) -> Iterator[str]:
    name = shard.name
    content = store.read(name)
    if content is None:
        yield f"{name} is missing"
    elif len(content) != shard.num_bytes:
        yield f"{name} has {len(content)} bytes, its receipt says {shard.num_bytes}"
    elif hashlib.sha256(content).hexdigest() != shard.sha256:
        yield f"{name} is not what was committed: its hash is not the receipt's"
    else:
        yield from look(content)


def _data_flaws(content: bytes, format: OutputFormat, receipt: Receipt) -> Iterator[str]:
    name = receipt.data.name
    try:
        num_rows = content.count(b"\n") if format != "parquet" else pq.read_metadata(pa.BufferReader(content)).num_rows
    except pa.ArrowException as error:
        yield f"{name} is not Parquet: {error}"
        return
    if num_rows != receipt.num_written:
        yield f"{name} has {num_rows} rows, its receipt says {receipt.num_written}"


def _error_flaws(content: bytes, unit: Unit, receipt: Receipt) -> Iterator[str]:
    name = receipt.errors.name
    try:
        rows = [parse_line(line)["row"] for line in content.splitlines()]
    except (RowError, KeyError, TypeError) as error:
        yield f"{name} holds a line that is not a dead letter: {error!r}"
        return
    if len(rows) != receipt.num_failed:
        yield f"{name} has {len(rows)} dead letters, its receipt says {receipt.num_failed}"
    if len(set(rows)) != len(rows):
        yield f"{name} has a row twice"
    if any(not unit.first_row <= row < unit.first_row + unit.num_rows for row in rows):
        yield f"{name} has a row of another unit"


def _batch_flaws(store: Store, record: RunRecord) -> Iterator[Flaw]:
    """What is wrong with the files that a batch has once all its units are committed."""
    if record.format == BATCH_FORMAT:
        yield from (Flaw(unit=None, message=fault) for fault in batch_file_faults(store, record))


def _stray_flaws(store: Store, record: RunRecord, files: CommittedFiles) -> Iterator[Flaw]:
    """Files that a reader of the folder would take for results and that no receipt accounts for."""
    num_units = record.plan.num_units
    for folder, ending in ((DATA, ending_of(record.format)), (ERRORS, "jsonl")):
        found = FoundFiles.listed(store, folder, num_units, ending)
        for part in left_over(found, files):
            name = f"{folder}/{part}"
            if _is_named_by_now(store, record, part.unit, name):
                continue
            text = f"{name} is named by no receipt: an attempt left it that was not committed, and reading {folder}/* reads it too"
            yield Flaw(unit=None, message=text, removable=name, is_mended_so=True)
        names = (f"{folder}/{name}" for name, size in store.sizes(folder) if size < 0 or found.part(name) is None)
        yield from (_foreign(name) for name in names if name != UNREADABLE)
    for name, _ in store.sizes(RECEIPTS):
        unit = unit_of_receipt(name)
        if unit is None:
            yield _foreign(f"{RECEIPTS}/{name}")
        elif unit >= num_units:
            yield replace(_foreign(f"{RECEIPTS}/{name}"), removable=f"{RECEIPTS}/{name}", is_mended_so=True)


def _is_named_by_now(store: Store, record: RunRecord, unit: int, name: str) -> bool:
    """Whether a unit's receipt names a file that it did not name when it was checked: the unit was
    committed under the check."""
    try:
        receipt = Receipt.from_json(store.read(receipt_name(unit)) or b"", record.format)
    except ValueError:
        return False
    return name in (receipt.data.name, receipt.errors.name)


def _foreign(name: str) -> Flaw:
    return Flaw(unit=None, message=f"{name} belongs to no unit of this run")


def _unreadable_flaws(store: Store) -> Iterator[Flaw]:
    try:
        lines = read_unreadable(store)
    except DamageError as error:
        yield Flaw(unit=None, message=str(error), removable=UNREADABLE)
        return
    for line in lines:
        yield Flaw(unit=line["unit"], message=f"could not be read: {line['message']}")
