"""Whether the values of a Parquet file are carried and written back equal.

What is right is what pyarrow itself reads (`to_pylist`), and for JSON the ISO 8601 and RFC 4648 texts of those values.
"""

import base64
import datetime as dt
import io
import json
import math
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.work import OnePassAnswer
from pipelines.job import OutputFormat
from pipelines.ledger.unit_files import encode_results
from pipelines.rows.rows import Answers, PreparedUnit, UnitRows
from pipelines.task_base.requests import ModelRequest
from pipelines.tasks.classify import ClassifyTask
from pipelines.unit_steps.finish import finish
from tests.helpers.pipelines.making import make_facts, make_job
from tests.helpers.pipelines.written_files import Written
from tests.pipelines.units.test_reading import Corpus

FACTS = make_facts("sequence-classification", names=("yes", "no"))
JOB = make_job(ClassifyTask(text="{{ a }}"))


def check_parquet(file: Written, folder: Path) -> None:
    """What is written to Parquet is what pyarrow reads in the file."""
    file.write(folder / "in.parquet")
    right = right_rows(folder / "in.parquet")
    read = Corpus(folder / "in.parquet").read()
    written = [pq.read_table(io.BytesIO(output(rows, "parquet"))) for rows in read]
    assert [value for table in written for value in table.column("a").to_pylist()] == right
    assert {table.schema.field("a").type for table in written} == {written[0].schema.field("a").type}
    assert [value for rows in read for value in rows.rows.values(None)] == [
        {"a": dict(value) if isinstance(value, list) and pa.types.is_map(written[0].schema.field("a").type) else value}
        for value in right
    ]


def check_json(file: Written, folder: Path) -> None:
    """What is written to JSON lines is what pyarrow reads in the file, as JSON holds it."""
    file.write(folder / "in.parquet")
    type = pq.ParquetFile(folder / "in.parquet").schema_arrow.field("a").type
    lines = [line for rows in Corpus(folder / "in.parquet").read() for line in output(rows, "jsonl").splitlines()]
    found = [json.loads(line)["a"] for line in lines]
    right = right_rows(folder / "in.parquet")
    if pa.types.is_duration(type):
        per_us = {"s": 10**6, "ms": 10**3, "us": 1}.get(type.unit, 1)
        found = [None if value is None else value * per_us // (1000 if type.unit == "ns" else 1) for value in found]
    if "decimal" in str(type):
        found = [json.loads(line, parse_float=Decimal, parse_int=Decimal)["a"] for line in lines]
    assert [comparable(value) for value in found] == [as_json(value, type) for value in right]


def output(rows: UnitRows, format: OutputFormat) -> bytes:
    """A unit as it is committed, each row answered with the same scores."""
    num_rows = rows.rows.num_rows
    requests = tuple(ModelRequest(row=row, token_ids=np.array([1], np.int32)) for row in range(num_rows))
    prepared = PreparedUnit(
        unit=rows.unit, rows=rows.rows, row_numbers=rows.row_numbers, failures=rows.failures, requests=requests
    )
    results = tuple(OnePassAnswer(values=np.array([1.0, 0.0], np.float32)) for _ in requests)
    return encode_results(finish(JOB, FACTS, prepared, Answers(results=results, seconds=1.0)), format)


def right_rows(path: Path) -> list[Any]:
    values: list[Any] = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read().column("a").to_pylist()
    return values


def as_json(value: Any, type: pa.DataType) -> Any:
    """A value of pyarrow's as JSON holds it."""
    match value:
        case dt.datetime() | dt.date() | dt.time():
            return comparable(value.isoformat())
        case dt.timedelta():
            return value // dt.timedelta(microseconds=1)
        case bytes():
            return base64.b64encode(value).decode()
        case uuid.UUID():
            return str(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: as_json(inner, type) for name, inner in value.items()}
        case [*pairs] if pa.types.is_map(type):
            return {key: as_json(inner, pa.null()) for key, inner in pairs}
        case [*inner]:
            return [as_json(one, pa.null()) for one in inner]
    return value


def comparable(value: Any) -> Any:
    """Texts of dates and times without the zeros at the end of a second, which ISO 8601 does not count, in UTC."""
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items()}
    if not isinstance(value, str) or not value[:2].isdigit() or ":" not in value:
        return value
    try:
        moment = dt.datetime.fromisoformat(value) if "T" in value else dt.time.fromisoformat(value)
    except ValueError:
        return value
    return (
        moment.astimezone(dt.UTC).isoformat()
        if isinstance(moment, dt.datetime) and moment.tzinfo
        else moment.isoformat()
    )
