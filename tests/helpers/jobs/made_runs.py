"""Output folders with results of one's own, written by a ledger as a run writes them, without any model."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec, Job, ModelSpec, OutputFormat, OutputSpec
from pipelines.ledger.ledger import Ledger
from pipelines.rows.rows import FinishedUnit, RowFailure, UnitRows
from pipelines.task_base.task import Task
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

SCORES = pa.map_(pa.string(), pa.float32())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A corpus in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist([dict(row) for row in rows])
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeRun:
    """What a run is to hold: `results` are the task's own columns, one value a row of the corpus at `paths`; `failed` rows, by their
    place in the whole corpus, are dead letters; `missing` units are not committed."""

    task: Task
    paths: Sequence[Path | str]
    results: Mapping[str, Any]
    columns: tuple[str, ...] | None = None
    required: Collection[str] = ()
    failed: Collection[int] = ()
    missing: Collection[int] = ()
    unit_rows: int = 5
    limit: int | None = None
    format: OutputFormat = "parquet"
    prefix: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    input_options: Mapping[str, Any] = field(default_factory=dict)
    truth: str | None = None
    model: str = "nowhere"
    input_format: str | None = None

    def write(self, out: Path | str) -> OutputSpec:
        """The folder."""
        output = OutputSpec(path=str(out), format=self.format, prefix=self.prefix, storage_options=self.options)
        source = InputSpec(
            paths=tuple(map(str, self.paths)),
            format=self.input_format,
            columns=self.columns,
            storage_options=self.input_options,
        )
        job = Job(
            name="made",
            model=ModelSpec(path=self.model),
            task=self.task,
            input=source,
            output=output,
            truth=self.truth,
        )
        columns = Columns(carried=self.columns, required=frozenset(self.required))
        with Ledger.open(job, {"unit_rows": self.unit_rows}) as ledger:
            sources = list_sources(source)
            record = ledger.write_plan(
                lambda sink: plan_units(sources, source, columns, unit_rows=self.unit_rows, limit=self.limit, sink=sink)
            )
            reader, first = UnitReader(schema=record.schema, storage=Storage.of(source)), 0
            for unit in ledger.pending_units(ledger.survey()):
                if unit.index not in self.missing:
                    ledger.committer().commit(self._finished(reader.read_unit(unit), first))
                first += unit.num_rows
        return output

    def _finished(self, rows: UnitRows, first: int) -> FinishedUnit:
        places = rows.row_numbers - rows.unit.first_row + first
        is_good = ~np.isin(places, list(self.failed))
        good = places[is_good].tolist()
        arrays = {
            self.prefix + name: _array(name, [values[row] for row in good]) for name, values in self.results.items()
        }
        arrays |= {
            f"{self.prefix}finish_reason": pa.nulls(len(good), pa.string()),
            f"{self.prefix}prompt_tokens": pa.array([7] * len(good), pa.int64()),
            f"{self.prefix}completion_tokens": pa.array([0] * len(good), pa.int64()),
        }
        failures = tuple(
            RowFailure(row=row, kind="null_value", message="null", input={})
            for row in rows.row_numbers[~is_good].tolist()
        )
        return FinishedUnit(
            unit=rows.unit,
            carried=rows.rows.kept(is_good).carried(self.columns),
            results=pa.table(arrays),
            failures=failures,
            prompt_tokens=7 * len(good),
            cached_tokens=0,
            completion_tokens=0,
            seconds=1.0,
        )


def _array(name: str, values: list[Any]) -> "pa.Array[Any]":
    """As tasks write them, under the name of one of several tasks too."""
    own = name.rpartition("_")[2]
    if own == "scores":
        return pa.array([scores and list(scores.items()) for scores in values], SCORES)
    types: Mapping[str, pa.DataType] = {
        "score": pa.float32(), "label": pa.string(), "labels": pa.list_(pa.string()), "text": pa.string(),
    }  # fmt: skip
    return pa.array(values, types.get(own))
