"""The table of units."""

import dataclasses
from pathlib import Path

import pytest

from pipelines.rows.unit import Unit
from pipelines.units.unit_table import iter_units, write_units


def unit(index: int) -> Unit:
    return Unit(
        index=index,
        path=f"/in/{index // 5}.parquet",
        relative_path=f"{index // 5}.parquet",
        format="parquet",
        row_group=index % 5,
        offset=index * 2**33,
        first_row=index,
        num_rows=1,
        num_bytes=9,
        source_size=2**40,
        source_tag=f"tag-{index // 5}",
        is_cuttable=True,
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    with write_units(tmp_path / "units.parquet") as add:
        for start in range(0, 25, 7):
            add([unit(index) for index in range(start, min(start + 7, 25))])
    return tmp_path / "units.parquet"


def test_units_come_back_as_they_were(table: Path) -> None:
    with table.open("rb") as file:
        assert list(iter_units(file)) == [unit(index) for index in range(25)]


@pytest.mark.parametrize("start", [0, 6, 7, 8, 24, 25])
def test_units_are_read_from_any_number_on(table: Path, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.units.unit_table._UNITS_PER_BATCH", 3)
    with table.open("rb") as file:
        assert [unit.index for unit in iter_units(file, start=start)] == list(range(start, 25))


def test_a_table_without_units_is_a_table(tmp_path: Path) -> None:
    with write_units(tmp_path / "units.parquet"):
        pass
    with (tmp_path / "units.parquet").open("rb") as file:
        assert list(iter_units(file)) == []


def test_every_field_of_a_unit_is_a_column(table: Path) -> None:
    with table.open("rb") as file:
        assert {type(value) for value in dataclasses.asdict(next(iter_units(file))).values()} == {int, str, bool}
