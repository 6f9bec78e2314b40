"""Folders that are tables of Delta Lake, whose log says which of their Parquet files count.

Files that an update or a delete has replaced stay in the folder until the table is vacuumed: read as plain Parquet, the table would have
rows that it has not.
"""

import posixpath
from collections.abc import Callable, Iterable

from pipelines.errors import PlanError

DELTA_LOG = "_delta_log"
_ENDING = ".parquet"  # of all data files of such a table


def refuse_tables(files: Iterable[str], is_folder: Callable[[str], bool]) -> None:
    """Looks for a log beside Parquet files that were found, or in a folder above them; `is_folder` says whether there is such a folder.

    Raises:
        PlanError: they belong to a table.
    """
    for folder in sorted(_folders_of(files)):
        if is_folder(posixpath.join(folder, DELTA_LOG)):
            raise PlanError(
                f"{folder} is a Delta Lake table (it has a {DELTA_LOG}): which of its files count stands in its log, and reading that is "
                "not available yet; export the table to plain Parquet, or name its files one by one in input.paths"
            )


def _folders_of(files: Iterable[str]) -> set[str]:
    """Where a table's root may be: the folders of the files and all above them, except for those
    of partitions (`name=value`)."""
    folders: set[str] = set()
    for place in {posixpath.dirname(file) for file in files if file.endswith(_ENDING)}:
        while place and place not in folders:
            folders.add(place)
            place = posixpath.dirname(place) if place != "/" else ""
    return {folder for folder in folders if "=" not in posixpath.basename(folder)}
