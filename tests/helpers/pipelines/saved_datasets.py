"""Folders as `Dataset.save_to_disk` of Hugging Face's `datasets` writes them, made with pyarrow alone.

The names, the keys of `state.json` and the metadata of the schema are those of datasets 5.2.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

ROWS_PER_BATCH = 1000


def save_dataset(folder: Path, table: pa.Table, *, num_shards: int = 1, state: dict[str, Any] | None = None) -> Path:
    """Streams of neighbouring rows, and what says which there are; `state` replaces keys of it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {"features": {name: {"dtype": "string", "_type": "Value"} for name in table.column_names}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": info})})
    names = [f"data-{shard:05d}-of-{num_shards:05d}.arrow" for shard in range(num_shards)]
    rest, start = table.num_rows % num_shards, 0
    for shard, name in enumerate(names):
        num_rows = table.num_rows // num_shards + (shard < rest)
        with ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table.slice(start, num_rows), max_chunksize=ROWS_PER_BATCH)
        start += num_rows
    written: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "8b3e9357a7d4fb6e",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(written | (state or {}), indent=2, sort_keys=True))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", **info}, indent=2))
    return folder
