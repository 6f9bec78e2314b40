"""The bytes of a unit's files: results as Parquet or JSON lines, dead letters as JSON lines. Equal rows are equal bytes.

Parquet is written with fixed settings, without metadata of its own, in one row group of one chunk, and dictionary columns with their
values in order of appearance, so nothing of how a table was put together shows.
"""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.json_values import dump_json, json_rows
from pipelines.job import OutputFormat
from pipelines.rows.rows import FinishedUnit, RowFailure
from pipelines.rows.set_apart import unshown
from pipelines.rows.unit import Unit

_MAX_ROW_GROUP_ROWS = 1 << 20


def encode_results(finished: FinishedUnit, format: OutputFormat) -> bytes:
    """A unit's result rows as the content of its shard; see `pipelines.formats.json_values` for how types look in JSON. The lines of a
    batch are whole already: its task's first column."""
    if format == "jsonl":
        rows = zip(finished.carried.as_json(), json_rows(finished.results), strict=True)
        return b"".join(dump_json(carried | results) + b"\n" for carried, results in rows)
    if format == "openai-batch":
        lines: list[Any] = finished.results.column(0).to_pylist()
        return b"".join(line + b"\n" for line in lines)
    return encode_table(result_table(finished))


def encode_table(table: pa.Table) -> bytes:
    """Rows as Parquet, by the settings of every run."""
    buffer = io.BytesIO()
    pq.write_table(
        _canonical(table),
        buffer,
        compression="zstd",
        compression_level=3,
        row_group_size=_MAX_ROW_GROUP_ROWS,
        data_page_size=1 << 20,
        version="2.6",
        use_dictionary=True,
        write_statistics=True,
        store_schema=True,
    )
    return buffer.getvalue()


def result_table(finished: FinishedUnit) -> pa.Table:
    """A unit's result rows as one table: carried columns first."""
    carried = finished.carried.as_arrow().table
    fields = [*carried.schema, *finished.results.schema]
    return pa.Table.from_arrays([*carried.columns, *finished.results.columns], schema=pa.schema(fields))


def _canonical(table: pa.Table) -> pa.Table:
    table = table.replace_schema_metadata(None).combine_chunks()
    for index, field in enumerate(table.schema):
        if isinstance(field.type, pa.DictionaryType):
            column: Any = table.column(index).cast(field.type.value_type).combine_chunks()
            table = table.set_column(index, field, column.dictionary_encode().cast(field.type))
    return table


def encode_dead_letters(unit: Unit, failures: tuple[RowFailure, ...]) -> bytes:
    """A unit's failed rows as JSON lines by row number."""
    return b"".join(letter_line(unit, failure) for failure in sorted(failures, key=lambda failure: failure.row))


def letter_line(unit: Unit, failure: RowFailure, *, attempts: int = 0) -> bytes:
    """A failed row of a unit as its line; `attempts` is how often it was tried again before."""
    return _line_of(_letter(unit, failure, attempts)) + b"\n"


def _letter(unit: Unit, failure: RowFailure, attempts: int) -> dict[str, Any]:
    letter = {
        "unit": unit.index,
        "path": unit.path,
        "row": failure.row,
        "kind": failure.kind,
        "message": failure.message,
        "attempts": attempts,
        "input": failure.input,
    }
    if failure.tasks:
        letter["tasks"] = list(failure.tasks)
    return letter if failure.answer is None else letter | {"answer": failure.answer}


def _line_of(letter: dict[str, Any]) -> bytes:
    try:
        return dump_json(letter)
    except Exception as error:  # noqa: BLE001 - the row boundary: the letter says where the row is
        return dump_json(letter | {"input": unshown(error)})
