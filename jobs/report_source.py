"""A run's output folder, read for a report: receipts as columns, and single units' results, dead letters and inputs as JSON values."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jobs.errors import UsageError
from jobs.report_facts import Floats
from pipelines.errors import SourceError
from pipelines.job import OutputFormat, OutputSpec
from pipelines.json_lines import parse_line
from pipelines.json_values import json_rows
from pipelines.ledger import UNITS, UNREADABLE
from pipelines.reading import UnitReader
from pipelines.receipts import RECEIPTS, data_name, errors_name, iter_receipts, receipt_name
from pipelines.run_record import RUN, RunRecord, read_record
from pipelines.storage import Storage, is_remote
from pipelines.store import Store, open_store
from pipelines.unit_table import iter_units
from pipelines.units import Unit

JsonRow = dict[str, Any]
MAX_SKIPPED_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptColumns:
    """All receipts of a run, one value a unit in each array [units], in the order of the units.

    `committed` is when each was committed, in seconds of some clock.
    """

    units: Floats
    written: Floats
    failed: Floats
    prompt_tokens: Floats
    cached_tokens: Floats
    completion_tokens: Floats
    seconds: Floats
    committed: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutput:
    """An output folder with a run in it. `target` reads where it is, `source` where the run's input is; without the job's storage
    options that may fail, and then a report does without.
    """

    store: Store
    record: RunRecord
    target: Storage
    source: Storage

    @classmethod
    def open(cls, spec: OutputSpec, *, input_options: Mapping[str, Any]) -> "RunOutput":
        """Raises:
        UsageError: there is no run.
        """
        store = open_store(spec)
        record = read_record(store)
        if record is None:
            raise UsageError(f"{store.location} has no {RUN}: no run was planned there; give the output.path of a run")
        return cls(store=store, record=record, target=Storage(spec.storage_options), source=Storage(input_options))

    @property
    def format(self) -> OutputFormat:
        return "jsonl" if self.record.spec["output"]["format"] == "jsonl" else "parquet"

    @property
    def prefix(self) -> str:
        return str(self.record.spec["output"]["prefix"])

    def receipts(self, times: Mapping[str, float]) -> ReceiptColumns:
        """All receipts; `times` is when each receipt's file was written."""
        rows = [
            (
                receipt.unit,
                receipt.num_written,
                receipt.num_failed,
                receipt.prompt_tokens,
                receipt.cached_tokens,
                receipt.completion_tokens,
                receipt.seconds,
                times.get(receipt_name(receipt.unit), 0.0),
            )
            for receipt in iter_receipts(self.store)
        ]
        columns = np.array(sorted(rows), dtype=np.float64).reshape(len(rows), 8).T
        return ReceiptColumns(**dict(zip(ReceiptColumns.__dataclass_fields__, columns, strict=True)))

    def commit_times(self) -> dict[str, float]:
        """When each receipt was written, by the clock of where it is, in seconds."""
        location = f"{self.store.location}/{RECEIPTS}"
        if not is_remote(location):
            with os.scandir(location) as entries:
                return {f"{RECEIPTS}/{entry.name}": entry.stat().st_mtime for entry in entries}
        files, key = self.target.resolve(location)
        files.invalidate_cache()
        listed = {Path(found["name"]).name: found.get("LastModified") for found in files.ls(key, detail=True)}
        return {f"{RECEIPTS}/{name}": when.timestamp() for name, when in listed.items() if when is not None}

    def units(self, indices: Collection[int]) -> dict[int, Unit]:
        """The plan's units of these numbers."""
        wanted = set(indices)
        with self.store.open(UNITS) as file:
            return {unit.index: unit for unit in iter_units(file) if unit.index in wanted}

    def results(self, unit: int, columns: Sequence[str] | None = None) -> list[JsonRow]:
        """A committed unit's rows, in input order; with `columns` those that exist of them."""
        name = data_name(unit, self.format)
        if self.format == "jsonl":
            rows = self._json_lines(name)
            return rows if columns is None else [{key: row[key] for key in columns if key in row} for row in rows]
        with self.store.open(name) as file:
            table = pq.ParquetFile(file)
            names = [key for key in table.schema_arrow.names if columns is None or key in columns]
            return json_rows(table.read(columns=names))

    def dead_letters(self, unit: int) -> list[JsonRow]:
        """A committed unit's failed rows."""
        return self._json_lines(errors_name(unit))

    def unreadable_units(self) -> list[JsonRow]:
        """The units that could not be read, as `errors/units.jsonl` lists them."""
        return self._json_lines(UNREADABLE)

    def _json_lines(self, name: str) -> list[JsonRow]:
        return [parse_line(line) for line in (self.store.read(name) or b"").split(b"\n") if line]

    def inputs(self, unit: Unit) -> dict[int, JsonRow]:
        """A unit's rows as they came in, by row number; empty where reading them again is impossible or would take long."""
        if not unit.is_cuttable and unit.offset > MAX_SKIPPED_BYTES:
            return {}
        declared = frozenset(self.record.spec["input"]["schema"] or ())
        reader = UnitReader(schema=self.record.schema, declared=declared, storage=self.source)
        try:
            rows = reader.read_unit(unit)
        except SourceError:
            return {}
        return dict(zip(rows.row_numbers.tolist(), rows.rows.as_json(), strict=True))

    def letters_of_units(self, units: Sequence[int]) -> Iterator[JsonRow]:
        """The dead letters of several units."""
        for unit in units:
            yield from self.dead_letters(unit)
