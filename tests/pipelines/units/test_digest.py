"""A touched input is the same input; one that was written again is not."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import cast

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pipelines.errors import PlanError, SourceChangedError
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Storage
from pipelines.job import InputSpec
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import Unit
from pipelines.units.digest import block_starts, digest_of, with_digests
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader
from pipelines.units.unit_table import iter_units, write_units
from tests.pipelines.units.test_reading import ROWS, WRITERS, every_format

BLOCK = 16 << 10


@given(st.integers(0, 1 << 20))
def test_blocks_hold_the_head_the_tail_and_all_of_a_small_file(size: int) -> None:
    starts = list(block_starts(0, size, 8, BLOCK))
    covered = [(start, min(start + BLOCK, size)) for start in starts]
    assert starts == sorted(set(starts))
    assert len(starts) <= 8
    if size:
        assert covered[0][0] == 0
        assert covered[-1][1] == size
    if size <= 8 * BLOCK:
        assert sum(end - start for start, end in covered) == size


@pytest.mark.parametrize("size", [0, 1, 5000, 8 * BLOCK, 8 * BLOCK + 1, 1 << 20])
def test_the_hash_changes_with_head_tail_and_size(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "in", bytearray(os.urandom(size))
    path.write_bytes(content)
    first = digest_of(Storage(), str(path), size)
    if size <= BLOCK:
        assert first == hashlib.sha256(str(size).encode() + content).hexdigest()
    for place in {0, size // 2 if size <= 8 * BLOCK else 0, size - 1} if size else ():
        content[place] ^= 1
        path.write_bytes(content)
        assert digest_of(Storage(), str(path), size) != first
        content[place] ^= 1
    path.write_bytes(content + b"\n")
    assert digest_of(Storage(), str(path), size + 1) != first


def planned(folder: Path) -> tuple[UnitReader, list[Unit]]:
    """Units as a run plans, writes and reads them."""
    spec = InputSpec(paths=(str(folder),))
    units: list[Unit] = []
    plan = plan_units(with_digests(list_sources(spec)), spec, Columns(), unit_rows=100, sink=units.extend)
    with write_units(folder / ".units") as sink:
        sink(units)
    with (folder / ".units").open("rb") as file:
        assert list(iter_units(file)) == units
    return pickle.loads(pickle.dumps(UnitReader(schema=plan.schema))), units


@every_format
def test_units_of_a_touched_file_are_read(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    reader, units = planned(tmp_path)
    os.utime(tmp_path / name, ns=(1, 1))
    read = [cast("UnitRows", rows).rows for rows in reader.read_units(units)]
    assert sum(rows.num_rows for rows in read) == len(ROWS)


@every_format
def test_units_of_a_file_that_was_written_again_are_not(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    reader, units = planned(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / name, ns=(1, 1))
    with pytest.raises(SourceChangedError, match="has changed since it was planned"):
        reader.read_unit(units[0])


def test_a_file_that_cannot_be_read_is_a_plan_error(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"{}\n")
    files = list_sources(InputSpec(paths=(str(tmp_path),)))
    (tmp_path / "in.jsonl").unlink()
    (tmp_path / "in.jsonl").mkdir()
    with pytest.raises(PlanError, match=r"cannot read .*in\.jsonl"):
        with_digests(files)
