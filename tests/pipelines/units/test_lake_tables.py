"""A Delta Lake table is refused as one: its folder holds files that its log has removed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipelines.errors import PlanError
from pipelines.job import InputSpec
from pipelines.units.listing import list_sources
from tests.helpers.faulty_store import Fault, FaultyStore, refuse

OLD, NEW = "part-00000-a.snappy.parquet", "lang=en/part-00001-b.snappy.parquet"
LOG = {
    "00000000000000000000.json": [{"protocol": {"minReaderVersion": 1}}, {"add": {"path": OLD, "dataChange": True}}],
    "00000000000000000001.json": [{"remove": {"path": OLD, "dataChange": True}}, {"add": {"path": NEW}}],
}
"""A table's log by the protocol of Delta Lake: the second version has replaced the file of the first."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "tables" / "tickets"
    for name in (OLD, NEW):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"body": [name]}), folder / name)
    (folder / "_delta_log").mkdir()
    for name, actions in LOG.items():
        (folder / "_delta_log" / name).write_text("".join(f"{json.dumps(action)}\n" for action in actions))
    return folder


WAYS: dict[str, Callable[[str], str]] = {
    "its folder": lambda folder: folder,
    "all in it": lambda folder: f"{folder}/**",
    "a pattern": lambda folder: f"{folder}/*.parquet",
    "one of its partitions": lambda folder: f"{folder}/lang=en",
    "a pattern of partitions": lambda folder: f"{folder}/lang=*/*.parquet",
    "a folder of tables": lambda folder: folder.rpartition("/")[0],
    "a pattern of tables": lambda folder: f"{folder.rpartition('/')[0]}/t*/*.parquet",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_table_is_refused_with_the_remedy(table: Path, way: str) -> None:
    with pytest.raises(PlanError, match=r"/tickets is a Delta Lake table .*not available yet; export .*one by one"):
        list_sources(InputSpec(paths=(WAYS[way](str(table)),)))


@pytest.mark.parametrize("way", WAYS)
def test_a_table_in_a_bucket_is_refused_with_the_remedy(
    table: Path, tmp_path: Path, s3_options: dict[str, Any], way: str
) -> None:
    url = f"s3://bucket/{tmp_path.name}/tables/tickets"
    s3fs.S3FileSystem(**s3_options).put(str(table), url, recursive=True)
    with pytest.raises(PlanError, match=r"/tickets is a Delta Lake table .*not available yet; export .*one by one"):
        list_sources(InputSpec(paths=(WAYS[way](url),), storage_options=s3_options))


def test_files_of_a_table_that_are_named_are_read(table: Path, tmp_path: Path, s3_options: dict[str, Any]) -> None:
    assert [file.path for file in list_sources(InputSpec(paths=(str(table / NEW),)))] == [str(table / NEW)]
    url = f"s3://bucket/{tmp_path.name}/tables/tickets"
    s3fs.S3FileSystem(**s3_options).put(str(table), url, recursive=True)
    (file,) = list_sources(InputSpec(paths=(f"{url}/{NEW}",), storage_options=s3_options))
    assert file.path == f"{url}/{NEW}"


def test_folders_above_that_may_not_be_listed_are_no_matter(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    """A policy that allows one prefix of the bucket."""
    url = f"s3://bucket/{tmp_path.name}/mine"
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "in.parquet")
    s3fs.S3FileSystem(**s3_options).put(str(tmp_path / "in.parquet"), f"{url}/in.parquet")
    for pattern in (url, f"{url}/*.parquet"):
        with FaultyStore(s3_options["client_kwargs"]["endpoint_url"]) as proxy:
            proxy.add(Fault("GET", "prefix=_delta_log", refuse(403, "AccessDenied")))
            (file,) = list_sources(InputSpec(paths=(pattern,), storage_options=proxy.options(s3_options)))
            assert file.path == f"{url}/in.parquet"
            assert proxy.seen("GET", "prefix=_delta_log")


def test_a_table_elsewhere_is_no_matter(table: Path) -> None:
    """Beside the input, and around files that are no part of a table."""
    beside = table.parent / "plain"
    beside.mkdir()
    pq.write_table(pa.table({"body": ["x"]}), beside / "in.parquet")
    assert [file.relative_path for file in list_sources(InputSpec(paths=(str(beside),)))] == ["in.parquet"]
    (table / "export").mkdir()
    (table / "export" / "in.jsonl").write_text('{"body": "x"}\n')
    assert [file.relative_path for file in list_sources(InputSpec(paths=(str(table / "export"),)))] == ["in.jsonl"]
