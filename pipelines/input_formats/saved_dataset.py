"""Folders that Hugging Face's `datasets` wrote with `save_to_disk`: which of their files are rows, and in which order.

A saved `Dataset` is Arrow streams, and `state.json`, which lists them; other Arrow files beside them are caches. A saved `DatasetDict`
is a folder of such folders, one a split, and `dataset_dict.json`.
Source: `Dataset.save_to_disk` and `load_from_disk` in https://github.com/huggingface/datasets, `src/datasets/arrow_dataset.py`.
"""

import posixpath
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from pipelines.errors import PlanError

STATE, SPLITS = "state.json", "dataset_dict.json"
_INDICES = ("_indices_files", "_indices_data_files")


def files_of_dataset(folder: str, names: Sequence[str], read: Callable[[str], bytes]) -> tuple[str, ...] | None:
    """The names of the files of a saved dataset in order; None if the folder is not a saved
    dataset. `read` gives the content of a file of the folder.

    Raises:
        PlanError: it is several splits, its rows are picked by indices, or a file of it is missing.
    """
    if SPLITS in names:
        _check_no_splits(folder, _object(read(SPLITS)))
    state = _object(read(STATE)) if STATE in names else {}
    if not isinstance(state.get("_data_files"), list):
        return None
    indices = next((key for key in _INDICES if state.get(key)), None)
    if indices is not None:
        raise PlanError(
            f"{folder} is a dataset whose rows are picked by indices ({indices} in {STATE}), which are not applied; "
            "call flatten_indices() on it and save it again"
        )
    files = tuple(_name(folder, entry) for entry in state["_data_files"])
    missing = next((name for name in files if name not in names), None)
    if missing is not None:
        raise PlanError(f"{folder} is a dataset without its file {missing}, which {STATE} names; copy the folder whole")
    return files


def _check_no_splits(folder: str, found: dict[str, Any]) -> None:
    splits = found.get("splits")
    if isinstance(splits, list) and splits:
        places = ", ".join(posixpath.join(folder, str(split)) for split in splits)
        raise PlanError(
            f"{folder} is a DatasetDict of {len(splits)} splits, which are datasets of their own; give the folder of one: {places}"
        )


def _name(folder: str, entry: Any) -> str:
    if isinstance(entry, dict) and entry.keys() == {"filename"} and isinstance(entry["filename"], str):
        return str(entry["filename"])
    raise PlanError(
        f"{folder} is a dataset whose {STATE} lists its files in a way that is not read: {entry!r} where "
        '{"filename": NAME} is expected; load it and save it again'
    )


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object of a file, an empty one if it holds none."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
