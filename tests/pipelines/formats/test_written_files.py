"""Files as pyarrow writes them, with every type it has: read, carried and written back equal. Other writers' are in `tests/clients`."""

from pathlib import Path

import pytest

from tests.helpers.pipelines.carried_values import check_json, check_parquet
from tests.helpers.pipelines.written_files import Written, arrow_files

FILES = list(arrow_files())


@pytest.mark.parametrize("file", FILES, ids=str)
def test_values_come_back_in_parquet_as_pyarrow_reads_them(file: Written, tmp_path: Path) -> None:
    check_parquet(file, tmp_path)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_values_come_back_in_json(file: Written, tmp_path: Path) -> None:
    check_json(file, tmp_path)
