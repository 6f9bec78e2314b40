"""What a unit is: a run of neighbouring rows of one source file that are read, computed and committed together.

A unit names a place, never content: reading it is `pipelines.units.reading`, making all of them is
`pipelines.units.planning`, keeping them is `pipelines.units.unit_table`. Row numbers count from 0
within a file; blank lines of a text file are not rows and are not counted.
"""

from dataclasses import dataclass

NO_ROW_GROUP = -1

_WORK_PREFIX = "unit-"


def work_name(index: int) -> str:
    """What an engine calls the work of the unit of this number."""
    return f"{_WORK_PREFIX}{index}"


def unit_of_work(name: str) -> int | None:
    """The number of the unit whose work has this name; None for work that is no unit's."""
    number = name.removeprefix(_WORK_PREFIX)
    return int(number) if number != name else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A place in a source file, and what the file looked like when it was planned.

    Parquet: rows `offset` to `offset + num_rows` of row group `row_group`; `num_bytes` is an estimate of their size in memory.
    Text: the first `num_rows` rows of the bytes `offset` to `offset + num_bytes`; of the file itself if `is_cuttable`, else of its
    decompressed content, which can only be read from its start. `row_group` is then `NO_ROW_GROUP`.

    `index` is the unit's number in the run and names its shards. `path` is absolute or a URL; `relative_path` is relative to the
    input root and keys the rows' seeds together with the row number, which is `first_row` for the unit's first row.
    `source_size` (bytes), `source_tag` (an ETag, or the modification time in nanoseconds) and `source_digest` (see
    `pipelines.units.digest`; empty where a store's tag is enough) are the file's as planned.
    """

    index: int
    path: str
    relative_path: str
    format: str
    row_group: int
    offset: int
    first_row: int
    num_rows: int
    num_bytes: int
    source_size: int
    source_tag: str
    is_cuttable: bool
    source_digest: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadableUnit:
    """A unit that could not be read, or whose file is no longer the one that was planned, and why. With `is_fault` the reason is a failure
    of our own code; with `is_overrun` its rows could be read, and went over the limits of preparing them."""

    unit: Unit
    message: str
    is_fault: bool = False
    is_overrun: bool = False
