"""Folders of Hugging Face's `datasets`: their rows in their order, and nothing else that lies there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest

from pipelines.errors import PlanError
from pipelines.input_formats.saved_dataset import files_of_dataset
from pipelines.job import InputSpec
from pipelines.tasks.classify import ClassifyTask
from pipelines.units.listing import find_sources, list_sources
from tests.helpers.pipelines.fake_engines import fake_engine
from tests.helpers.pipelines.running import drive, job_of, receipts, rows_in
from tests.helpers.pipelines.saved_datasets import save_dataset
from tests.pipelines.units.test_reading import Corpus

TABLE = pa.table({"id": list(range(2500)), "body": [f"row {number} ü" for number in range(2500)]})
ROWS = TABLE.to_pylist()


def names(path: Path | str, **spec: Any) -> list[str]:
    return [file.relative_path for file in list_sources(InputSpec(paths=(str(path),), **spec))]


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/*.arrow"])
def test_a_saved_dataset_is_its_rows(tmp_path: Path, pattern: str) -> None:
    save_dataset(tmp_path / "ds", TABLE, num_shards=3)
    corpus = Corpus(Path(f"{tmp_path}/ds{pattern}"), unit_rows=256)
    assert corpus.rows() == ROWS
    assert corpus.plan.num_files == 3
    assert max(unit.num_rows for unit in corpus.units) == 256


def test_files_come_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    order = [2, 0, 1]
    listed = [{"filename": f"data-{shard:05d}-of-00003.arrow"} for shard in order]
    folder = save_dataset(tmp_path / "ds", TABLE, num_shards=3, state={"_data_files": listed})
    shards = [ROWS[:834], ROWS[834:1667], ROWS[1667:]]
    assert Corpus(folder).rows() == [row for shard in order for row in shards[shard]]
    assert names(folder, format="arrow") == [entry["filename"] for entry in listed]


def test_caches_and_descriptions_beside_a_dataset_are_not_input(tmp_path: Path) -> None:
    """`map` and `filter` write Arrow files into the folder of the dataset that they work on."""
    folder = save_dataset(tmp_path / "ds", TABLE)
    cache = pa.table({"indices": pa.array([5, 3], pa.uint64())})
    with ipc.new_stream(str(folder / "cache-62d4f95502a74898.arrow"), cache.schema) as writer:
        writer.write_table(cache)
    found = find_sources(InputSpec(paths=(str(folder),)))
    assert [file.relative_path for file in found.files] == ["data-00000-of-00001.arrow"]
    assert found.passed_over.num_files == 0


def test_datasets_below_a_folder_are_all_its_input(tmp_path: Path) -> None:
    save_dataset(tmp_path / "b", TABLE.slice(0, 10), num_shards=2)
    save_dataset(tmp_path / "a/deep", TABLE.slice(10, 10))
    assert Corpus(tmp_path).rows() == ROWS[10:20] + ROWS[:10]


def test_the_splits_of_a_dataset_dict_are_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_dataset(tmp_path / "all" / split, TABLE.slice(0, 10))
    (tmp_path / "all/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(PlanError, match=rf"DatasetDict of 2 splits.*give the folder of one: {tmp_path}/all/train, "):
        names(tmp_path / "all")
    assert Corpus(tmp_path / "all/train", tmp_path / "all/test").plan.num_rows == 20


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            {"_indices_data_files": [{"filename": "indices.arrow"}]},
            r"picked by indices \(_indices_data_files.*flatten_indices",
        ),
        ({"_indices_files": [{"filename": "indices.arrow"}]}, r"picked by indices \(_indices_files"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, r"without its file gone\.arrow.*copy the folder whole"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, r"without its file \.\./x\.arrow"),
        ({"_data_files": [{"filename": "data-00000-of-00001.arrow", "skip": 3}]}, "in a way that is not read"),
        ({"_data_files": ["data-00000-of-00001.arrow"]}, "in a way that is not read"),
    ],
)
def test_a_dataset_that_cannot_be_read_as_it_is_is_refused(tmp_path: Path, state: dict[str, Any], told: str) -> None:
    folder = save_dataset(tmp_path / "ds", TABLE.slice(0, 10), state=state)
    with pytest.raises(PlanError, match=told):
        names(folder)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"_data_files": 3}', b'{"name": "Ohio"}', b"\xff", b'{"a": 1}\n{"a": 2}\n']
)
def test_a_file_called_state_that_lists_none_is_a_file(content: bytes) -> None:
    assert files_of_dataset("in", ("a.jsonl", "state.json"), {"state.json": content}.__getitem__) is None


def test_a_job_that_says_jsonl_reads_what_is_called_state(tmp_path: Path) -> None:
    save_dataset(tmp_path, TABLE.slice(0, 10))
    assert names(tmp_path, format="jsonl") == ["dataset_info.json", "state.json"]


def test_a_dataset_in_a_store_is_listed_as_on_a_disk(tmp_path: Path) -> None:
    listed = [{"filename": f"data-0000{shard}-of-00002.arrow"} for shard in (1, 0)]
    folder = save_dataset(tmp_path / "ds", TABLE.slice(0, 10), num_shards=2, state={"_data_files": listed})
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/saved/ds/{path.name}", path.read_bytes())
    assert names("memory://saved/ds") == [entry["filename"] for entry in listed]


def test_a_dataset_in_s3_is_read(s3_options: dict[str, Any], tmp_path: Path) -> None:
    listed = [{"filename": f"data-0000{shard}-of-00002.arrow"} for shard in (1, 0)]
    folder = save_dataset(tmp_path / "ds", TABLE, num_shards=2, state={"_data_files": listed})
    url = f"s3://bucket/saved/{tmp_path.name}"
    store = fsspec.filesystem("s3", **s3_options)
    for path in folder.iterdir():
        store.pipe_file(f"{url}/{path.name}", path.read_bytes())
    corpus = Corpus(url, storage_options=s3_options)
    assert corpus.rows() == ROWS[1250:] + ROWS[:1250]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_run_over_a_dataset_is_over_its_rows(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Unit by unit, up to a limit."""
    folder, out = save_dataset(tmp_path / "ds", TABLE.slice(0, 300), num_shards=3), tmp_path / "out"
    task, model = ClassifyTask(text="{{ body }}"), tiny_checkpoint("sequence-classification")
    job = job_of(task, model=model, corpus=folder, out=out, unit_rows=32, limit=250)
    assert drive(job, make_engine=fake_engine).exit_status == 0
    assert [{"id": row["id"], "body": row["body"]} for row in rows_in(out)] == ROWS[:250]
    assert len(receipts(out)) == 4 + 4 + 2  # of 100, 100 and 50 rows of its files
