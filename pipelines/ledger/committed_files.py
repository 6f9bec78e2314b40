"""Which files of an output folder count: for each unit the two that its receipt names. Other files
with the name of a unit are left over.

    found = FoundFiles.listed(store, DATA, num_units, "parquet")     # what is there
    files = CommittedFiles(num_units)
    files.add(receipt)                                               # from now on its two files count
    for name in left_over(found, files): ...

It takes a few bytes per unit, however long the names are.
"""

from collections.abc import Iterator

import numpy as np

from pipelines.io.outputs import Store
from pipelines.ledger.part_names import PartName
from pipelines.ledger.receipts import DATA, ERRORS, Receipt, Shard

_NONE = -1


class CommittedFiles:
    """The files that receipts name, as one key per unit and folder."""

    def __init__(self, num_units: int) -> None:
        self._keys = {folder: np.full(num_units, _NONE, np.int64) for folder in (DATA, ERRORS)}

    def add(self, receipt: Receipt) -> None:
        """Has the files of a receipt count, in the place of those of an earlier receipt of its unit."""
        self._keys[DATA][receipt.unit] = receipt.data.key
        self._keys[ERRORS][receipt.unit] = receipt.errors.key

    def is_committed(self, unit: int) -> bool:
        """Whether a unit has a receipt."""
        return int(self._keys[DATA][unit]) != _NONE

    def has(self, folder: str, part: PartName) -> bool:
        """Whether a receipt names this file of the folder."""
        return int(self._keys[folder][part.unit]) == part.key


class FoundFiles:
    """The files of units in one folder with their sizes: the first of each unit in arrays, further
    ones, which are rare, in a mapping.

    Folders are left out, and so are names that no unit of the run can have.
    """

    def __init__(self, folder: str, num_units: int, ending: str) -> None:
        self.folder, self.ending = folder, ending
        self._keys = np.full(num_units, _NONE, np.int64)
        self._sizes = np.full(num_units, _NONE, np.int64)
        self._more: dict[tuple[int, int], int] = {}

    @classmethod
    def listed(cls, store: Store, folder: str, num_units: int, ending: str) -> "FoundFiles":
        """Raises:
        OutputError: the folder cannot be listed.
        """
        found = cls(folder, num_units, ending)
        for name, size in store.sizes(folder):
            part = found.part(name)
            if part is not None and size >= 0:
                found._add(part, size)
        return found

    def part(self, name: str) -> PartName | None:
        """A file name read as the name of a unit's file, None if no unit of this run has that
        name."""
        part = PartName.of(name)
        return part if part is not None and part.unit < len(self._keys) and part.ending == self.ending else None

    def is_whole(self, unit: int, shard: Shard) -> bool:
        """Whether a unit's file is there and has the size it should."""
        if int(self._keys[unit]) == shard.key:
            return int(self._sizes[unit]) == shard.num_bytes
        return self._more.get((unit, shard.key)) == shard.num_bytes

    def __iter__(self) -> Iterator[PartName]:
        for unit in np.flatnonzero(self._keys != _NONE).tolist():
            yield PartName.of_key(unit, int(self._keys[unit]), self.ending)
        for unit, key in self._more:
            yield PartName.of_key(unit, key, self.ending)

    def _add(self, part: PartName, size: int) -> None:
        if self._keys[part.unit] == _NONE:
            self._keys[part.unit], self._sizes[part.unit] = part.key, size
        else:
            self._more[part.unit, part.key] = size


def left_over(found: FoundFiles, files: CommittedFiles) -> Iterator[PartName]:
    """What was found and no receipt names."""
    return (part for part in found if not files.has(found.folder, part))
