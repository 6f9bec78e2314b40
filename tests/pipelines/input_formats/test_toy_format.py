"""A format that only this test knows: sections of `key = value` lines, one section a row. One object, and one line in the table."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import SpecError
from jobs.spec.job import load_spec
from pipelines.errors import PlanError, RowError
from pipelines.formats.conform import conform
from pipelines.formats.json_values import raw_value
from pipelines.formats.records import Records, iter_blocks
from pipelines.input_formats.input_format import (
    ColumnsAtHead,
    InputFormat,
    RowsWanted,
    Stretch,
    UnitsFound,
    UnitsWanted,
)
from pipelines.input_formats.table import FORMATS
from pipelines.input_formats.text import TextUnits, opened_text, read_records
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.rows import RowFailure, UnitRows
from pipelines.rows.unit import Unit
from pipelines.run import run
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.running import job_of, rows_in


def sections(text: bytes, is_end: bool) -> Records:
    """Every line that starts with a bracket ends the section before it; the last section ends with the text."""
    starts = [0, *(place + 1 for place in range(len(text)) if text.startswith(b"\n[", place))]
    ends = np.array([*starts[1:], *([len(text)] if is_end and text else [])], dtype=np.int64)
    return Records(ends=ends, is_row=np.ones(len(ends), dtype=np.bool_))


def values_of(section: bytes) -> dict[str, str]:
    title, *lines = section.decode().strip().split("\n")
    pairs = [line.partition(" = ") for line in lines]
    if any(not equals for _, equals, _ in pairs):
        raise RowError("malformed_section", f"the section {title} has a line without ' = '")
    return {"section": title.strip("[]")} | {key: value for key, _, value in pairs}


def check(path: str, head: bytes) -> None:
    if not head.startswith(b"["):
        raise PlanError(f"{path} does not start with a section")


def columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    with opened_text(storage, path, check) as content:
        first = content.read(1 << 16).partition(b"\n[")[0]
    return ColumnsAtHead(names=tuple(values_of(first)), is_all=True)


def scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    units = TextUnits(wanted.unit_rows)
    with opened_text(wanted.storage, stretch.path, check) as content:
        for block in iter_blocks(content, sections, block_bytes=256):
            units.add(block)
    names = columns_at_head(wanted.storage, stretch.path).names
    return units.finish(schema=pa.schema([(name, pa.string()) for name in names]))


def read(wanted: RowsWanted, units: Sequence[Unit]) -> Iterator[UnitContent]:
    return read_records(wanted.storage, units, sections, partial(parse, wanted))


def parse(wanted: RowsWanted, unit: Unit, records: Sequence[bytes]) -> UnitRows:
    rows, failures = {}, []
    for position, record in enumerate(records):
        try:
            rows[position] = values_of(record)
        except RowError as error:
            failures.append(RowFailure.of(unit, position, error, raw_value(record)))
    names = wanted.schema.names
    given = pa.table({name: pa.array([row.get(name) for row in rows.values()], pa.string()) for name in names})
    return UnitRows.of(unit, ArrowRows(table=conform(given, wanted.schema).table), list(rows), failures)


SECTIONS = InputFormat(
    name="sections",
    title="sections",
    endings=(".sections",),
    is_compressible=True,
    columns_at_head=columns_at_head,
    scan=scan,
    read=read,
)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "sections", SECTIONS)


def section(row: int) -> str:
    return f"[row {row}]\nbody = refund of order {row}\n" if row != 5 else "[row 5]\nno body\n"


SPEC = """
name: toy
model: {{path: nowhere}}
task: {{kind: classify, text: "{{{{ body }}}}"}}
input: {{paths: [in.sections], format: {format}}}
output: {{path: out}}
"""


def test_a_spec_may_name_a_format_that_is_in_the_table(tmp_path: Path, known: None) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(format="sections"))
    assert load_spec(path).job.input.format == "sections"
    path.write_text(SPEC.format(format="session"))
    with pytest.raises(SpecError, match=r"'session'; it must be parquet, "):
        load_spec(path)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_format_of_this_test_alone_is_run(tiny_checkpoint: Callable[..., Path], tmp_path: Path, known: None) -> None:
    """Its units are planned in tasks and read in workers that have never heard of it."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        text = "".join(section(row) for row in range(number * 20, number * 20 + 20))
        (folder / f"{number}.sections").write_text(text)
    job = job_of(
        ClassifyTask(text="{{ body }}"),
        model=tiny_checkpoint("sequence-classification"),
        corpus=folder,
        out=tmp_path / "out",
        unit_rows=8,
        input=InputSpec(paths=(str(folder),)),
    )
    summary = run(job)
    assert (summary.exit_status, summary.progress.rows_done) == (0, 60)
    assert [row["body"] for row in rows_in(tmp_path / "out")] == [
        f"refund of order {row}" for row in range(60) if row != 5
    ]
    (letter,) = rows_in(tmp_path / "out", "errors")
    assert (letter["row"], letter["kind"]) == (5, "malformed_section")
    assert pq.read_table(tmp_path / "out/units.parquet")["format"].unique().to_pylist() == ["sections"]
