"""Timestamps as text: CSV and JSONL read the same ones, and a date that no text can show is told."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pj
import pytest

from pipelines.formats.conform import conform
from pipelines.formats.json_values import json_rows
from pipelines.formats.schema import parse_type
from pipelines.formats.times import beyond_text
from tests.pipelines.units.test_reading import Corpus

TEXTS = [
    "2024-01-02",
    "2024-01-02 03:04",
    "2024-01-02T03:04:05",
    "2024-01-02T03:04:05Z",
    "2024-01-02 03:04:05.123",
    "2024-01-02T03:04:05.123456",
    "2024-01-02T03:04:05.123456789",
    "2024-01-02T03:04:05+02:00",
    "2024-01-02T03:04:05-0230",
    "2024-01-02T03:04:05+02",
    "2024-01-02 03:04:05 UTC",
    "9999-12-31",
    "0001-01-01",
    "12024-01-01",
    "2024-02-30",
    "soon",
]
TYPES = [f"timestamp[{unit}{zone}]" for unit in ("s", "ms", "us", "ns") for zone in ("", ", tz=UTC", ", tz=Asia/Tokyo")]


def arrows(text: str, type: pa.DataType) -> list[Any] | None:
    """What pyarrow's own JSON reader makes of the text, None if it refuses it."""
    options = pj.ParseOptions(explicit_schema=pa.schema([("t", type)]))
    source: Any = pa.BufferReader(json.dumps({"t": text}).encode())
    try:
        return pj.read_json(source, parse_options=options).column("t").cast(pa.int64()).to_pylist()
    except pa.ArrowInvalid:
        return None


@pytest.mark.parametrize("name", TYPES)
def test_csv_and_jsonl_read_the_same_timestamp_texts_as_arrow(tmp_path: Path, name: str) -> None:
    type = parse_type(name)
    right = [found[0] for text in TEXTS if (found := arrows(text, type)) is not None]
    (tmp_path / "in.csv").write_text("".join(f"{text}\n" for text in ["t", *TEXTS]))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"t": text}) + "\n" for text in TEXTS))
    for file in ("in.csv", "in.jsonl"):
        corpus = Corpus(tmp_path / file, schema={"t": name})
        (rows,) = corpus.read()
        assert rows.rows.as_arrow().table.column("t").cast(pa.int64()).to_pylist() == right, file
        assert {failure.kind for failure in rows.failures} == {"schema_mismatch"}
        assert len(rows.failures) == len(TEXTS) - len(right)


@pytest.mark.parametrize(
    "type", [pa.date32(), pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.timestamp("ns")]
)
def test_what_arrow_prints_is_within_text(type: pa.DataType) -> None:
    """The days at the edges, by what Arrow itself prints."""
    width = pa.int32() if pa.types.is_date32(type) else pa.int64()
    per_day = {"date32[day]": 1, "timestamp[s]": 86_400, "timestamp[ms, tz=UTC]": 86_400_000}.get(
        str(type), 86_400 * 10**6
    )
    days = [0, 20_000] if str(type) == "timestamp[ns]" else [-12_687_000, 0, 11_247_999, -12_687_001, 11_248_000]
    array: Any = pa.array([day * per_day for day in days], width).cast(type)
    is_beyond = beyond_text(array)
    assert is_beyond.tolist() == [False, False, False, True, True][: len(days)]
    for text in array.filter(pa.array(~is_beyond)).cast(pa.string()).to_pylist():
        assert re.fullmatch(r"-?\d{4,5}-\d\d-\d\d( 00:00:00[.0]*Z?)?", text)


NESTED = {
    pa.timestamp("us"): lambda value: value,
    pa.list_(pa.timestamp("us")): lambda value: [0, value],
    pa.struct([("a", pa.int64()), ("t", pa.timestamp("us"))]): lambda value: {"a": 1, "t": value},
    pa.map_(pa.string(), pa.timestamp("us")): lambda value: [("k", value)],
}


@pytest.mark.parametrize("type", NESTED, ids=str)
def test_an_infinity_is_a_dead_letter_with_its_number(type: pa.DataType) -> None:
    make: Any = NESTED[type]
    table = pa.table({"t": pa.array([make(0), None, make(2**63 - 1), make(5)], type)})
    fitted = conform(table, table.schema)
    assert fitted.positions == [0, 1, 3]
    assert fitted.misfits[2].kind == "invalid_value"
    assert "'t'" in fitted.misfits[2].message
    assert str(2**63 - 1) in str(json_rows(table.slice(2, 1)))


def test_the_last_day_of_the_calendar_stays(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([dt.datetime.fromisoformat("9999-12-31")], pa.timestamp("us"))})
    assert json_rows(conform(table, table.schema).table) == [{"t": "9999-12-31T00:00:00.000000"}]
