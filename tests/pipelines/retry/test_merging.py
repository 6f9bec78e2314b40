"""Units put together anew: whatever types their columns have, the bytes are those of a unit that
never failed."""

import datetime as dt
import decimal
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import OutputError
from pipelines.job import OutputFormat
from pipelines.ledger.receipts import DATA, ERRORS, GenerationRows, Receipt, Shard
from pipelines.ledger.unit_files import encode_dead_letters, encode_results
from pipelines.retry.letters import DeadLetter, lines_of
from pipelines.retry.merging import HeldUnit, generations_with, merged, steps_with
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import FinishedUnit, RowFailure, StepCounts
from tests.helpers.pipelines.making import make_rows

NUM_ROWS, FIRST = 9, 100
TIMES = [dt.datetime(2026, 1, 1, n, tzinfo=dt.UTC) for n in range(NUM_ROWS)]
TEXTS = [f"text {n % 4}" for n in range(NUM_ROWS)]
COLUMNS: dict[str, Any] = {
    "string": pa.array(TEXTS, pa.string()),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary8": pa.DictionaryArray.from_arrays(
        pa.array([n % 4 for n in range(NUM_ROWS)], pa.int8()), pa.array(["d", "c", "b", "a"])
    ),
    "binary": pa.array([bytes([n]) for n in range(NUM_ROWS)], pa.binary()),
    "fixed": pa.array([bytes([n] * 3) for n in range(NUM_ROWS)], pa.binary(3)),
    "decimal": pa.array([decimal.Decimal(f"{n}.25") for n in range(NUM_ROWS)], pa.decimal128(12, 2)),
    "time_ns": pa.array(TIMES, pa.timestamp("ns", "UTC")),
    "time_s": pa.array(TIMES, pa.timestamp("s", "Europe/Berlin")),
    "duration": pa.array([dt.timedelta(seconds=n) for n in range(NUM_ROWS)], pa.duration("us")),
    "half": pa.array(np.arange(NUM_ROWS, dtype=np.float16)),
    "float": pa.array([n / 3 if n % 3 else None for n in range(NUM_ROWS)], pa.float32()),
    "uint8": pa.array(range(NUM_ROWS), pa.uint8()),
    "bool": pa.array([n % 2 == 0 for n in range(NUM_ROWS)]),
    "null": pa.nulls(NUM_ROWS),
    "list": pa.array([[n, None] * (n % 3) for n in range(NUM_ROWS)], pa.list_(pa.int64())),
    "large_list": pa.array([[n] for n in range(NUM_ROWS)], pa.large_list(pa.int16())),
    "fixed_list": pa.array([[n, n] for n in range(NUM_ROWS)], pa.list_(pa.float32(), 2)),
    "map": pa.array([[("a", n)] for n in range(NUM_ROWS)], pa.map_(pa.string(), pa.float32())),
    "struct": pa.array(
        [{"a": n, "b": None} for n in range(NUM_ROWS)],
        pa.struct([pa.field("a", pa.int8()), pa.field("b", pa.string())]),
    ),
    "date": pa.array([dt.date(2026, 1, n + 1) for n in range(NUM_ROWS)], pa.date32()),
    "time32": pa.array([dt.time(n) for n in range(NUM_ROWS)], pa.time32("ms")),
}
ROWS = list(range(NUM_ROWS))


def finished(rows: list[int], failures: list[int], columns: dict[str, Any] = COLUMNS) -> FinishedUnit:
    """The results of some rows of one unit, by their places in it, and others as dead letters."""
    taken = pa.array(rows, pa.int64())
    whole = make_rows(pa.table({"n": ROWS}), first_row=FIRST)
    carried = pa.Table.from_arrays(
        [
            pa.concat_arrays([column.slice(row, 1) for row in rows]) if rows else column.slice(0, 0)
            for column in columns.values()
        ],
        schema=pa.schema([pa.field(name, column.type, metadata={"a": "b"}) for name, column in columns.items()]),
    )
    return FinishedUnit(
        unit=whole.unit,
        carried=ArrowRows(table=carried),
        results=pa.table({"label": pa.array([f"label {n}" for n in ROWS]).take(taken)}),
        failures=tuple(RowFailure(row=FIRST + row, kind="too_long", message="", input={"n": row}) for row in failures),
        prompt_tokens=0,
        cached_tokens=0,
        completion_tokens=0,
        seconds=0.0,
    )


def held(unit: FinishedUnit, format: OutputFormat) -> HeldUnit:
    data, errors = encode_results(unit, format), encode_dead_letters(unit.unit, unit.failures)
    receipt = Receipt(
        unit=0,
        epoch=1,
        num_rows=NUM_ROWS,
        num_written=NUM_ROWS - len(unit.failures),
        num_failed=len(unit.failures),
        prompt_tokens=0,
        cached_tokens=0,
        completion_tokens=0,
        seconds=0.0,
        data=Shard.of(DATA, 0, 1, "parquet", data),
        errors=Shard.of(ERRORS, 0, 1, "jsonl", errors),
    )
    lines = zip(unit.failures, lines_of(errors), strict=True)
    letters = [DeadLetter(row=each.row, kind=each.kind, attempts=2, line=line, values={}) for each, line in lines]
    return HeldUnit(receipt=receipt, data=data, letters=letters)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_type_comes_out_as_if_no_row_had_failed(name: str) -> None:
    column = {name: COLUMNS[name]}
    before = held(finished([0, 2, 5, 6], [1, 3, 4, 7, 8], column), "parquet")
    new = merged(before, before.letters, finished([1, 3, 4, 7, 8], [], column), "parquet")
    assert new.data == encode_results(finished(ROWS, [], column), "parquet")
    assert (new.errors, new.num_written, new.num_failed) == (b"", NUM_ROWS, 0)


@pytest.mark.parametrize(("had", "tried"), [([], ROWS), (ROWS[1:], [0]), (ROWS[:-1], [NUM_ROWS - 1]), ([4], [8, 0])])
@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_rows_come_in_the_order_of_the_input(format: OutputFormat, had: list[int], tried: list[int]) -> None:
    columns = {"string": COLUMNS["string"], "float": COLUMNS["float"]}
    bad = [row for row in ROWS if row not in had]
    before = held(finished(had, bad, columns), format)
    letters = [letter for letter in before.letters if letter.row - FIRST in tried]
    new = merged(before, letters, finished(sorted(tried), [], columns), format)
    good = sorted([*had, *tried])
    assert new.data == encode_results(finished(good, [], columns), format)
    assert (new.num_written, new.num_failed) == (len(good), NUM_ROWS - len(good))


def test_the_lines_of_a_batch_stay_as_they_are() -> None:
    """Of two rows with answers and one without, which has one then."""

    def answered(rows: list[int], failures: list[int]) -> FinishedUnit:
        lines = pa.table(
            {"line": pa.array([b'{"id": %d, "text": "\xe2\x80\xa8"}' % row for row in rows], pa.large_binary())}
        )
        return replace(finished(rows, failures), results=lines)

    others = ROWS[3:]
    before = held(answered([0, 2], [1, *others]), "openai-batch")
    new = merged(before, before.letters[:1], answered([1], []), "openai-batch")
    assert new.data == encode_results(answered([0, 1, 2], others), "openai-batch")


def test_a_row_that_fails_again_has_one_attempt_more_and_its_new_reason() -> None:
    before = held(finished([0], ROWS[1:]), "parquet")
    new = merged(before, before.letters[:1], finished([], [1]), "parquet")
    assert new.data == before.data
    first, *others = lines_of(new.errors)
    assert b'"attempts":3' in first
    assert others == [letter.line for letter in before.letters[1:]]


def test_results_of_other_columns_are_refused() -> None:
    before = held(finished([0], ROWS[1:], {"a": COLUMNS["string"]}), "parquet")
    with pytest.raises(OutputError, match="has other columns than the new results"):
        merged(before, before.letters, finished(ROWS[1:], [], {"b": COLUMNS["string"]}), "parquet")
    with pytest.raises(OutputError, match="a: string -> map"):
        merged(before, before.letters, finished(ROWS[1:], [], {"a": COLUMNS["map"]}), "parquet")


def test_what_the_models_of_a_cascade_did_adds_up() -> None:
    one = StepCounts(num_asked=9, num_kept=4, prompt_tokens=90, cached_tokens=9)
    two = StepCounts(num_asked=5, num_kept=3, prompt_tokens=50, cached_tokens=5)
    more = StepCounts(num_asked=2, num_kept=1, prompt_tokens=20, cached_tokens=2)
    assert steps_with((one, two), (more, more)) == (
        StepCounts(num_asked=11, num_kept=5, prompt_tokens=110, cached_tokens=11),
        StepCounts(num_asked=7, num_kept=4, prompt_tokens=70, cached_tokens=7),
    )
    assert steps_with((), ()) == ()


def test_rows_are_of_the_generation_that_computed_them_last() -> None:
    before = (GenerationRows(generation=1, rows=(3, 9)), GenerationRows(generation=2, rows=(4,)))
    after = (GenerationRows(generation=1, rows=(3,)), GenerationRows(generation=3, rows=(4, 9)))
    assert generations_with(before, 3, [9, 4]) == after
    assert generations_with(before, 0, [3, 4]) == (GenerationRows(generation=1, rows=(9,)),)
    assert generations_with((), 0, [1]) == ()
