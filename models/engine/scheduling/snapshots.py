"""Rows for copies of recurrent states, each of them the state at the end of a computed prefix.

Integers only; the tensors live in `caches`. A prefix is known by the number that the block pool
gave it, and its row is free again as soon as the pool forgets that number.
"""

from collections import OrderedDict
from collections.abc import Collection

from models.errors import EngineError


class Snapshots:
    """`num_rows` rows: one is free, or holds the state of one prefix.

    When there is no free one, the prefix whose state was used least recently loses its own, unless
    that is reserved. Those taken while a step is planned are written by it, so that they can be
    read from the next one on, and belong to nothing else before.
    """

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self._free = list(range(num_rows - 1, -1, -1))
        self._rows: OrderedDict[int, int] = OrderedDict()  # prefix -> row, least recently used first
        self._written: set[int] = set()  # prefixes whose rows the step that is planned writes
        self._late: list[int] = []  # rows that it writes for prefixes that are forgotten by now
        self._reserved: set[int] = set()

    @property
    def num_used(self) -> int:
        """Rows that hold a state."""
        return len(self._rows)

    @property
    def is_writing(self) -> bool:
        """Whether the step that is planned writes any."""
        return bool(self._written)

    def has(self, prefix: int) -> bool:
        """Whether the state at the end of a prefix can be read by the step that is planned."""
        return prefix in self._rows and prefix not in self._written

    def is_written(self, prefix: int) -> bool:
        """Whether the step that is planned writes the state at the end of a prefix."""
        return prefix in self._written

    def use(self, prefix: int) -> int:
        """The row of a prefix that has one, which counts as used."""
        self._rows.move_to_end(prefix)
        return self._rows[prefix]

    def take(self, prefix: int) -> int | None:
        """A row for the state at the end of a prefix, to be written by the step that is planned;
        None if it has one already, or none can be had."""
        if prefix in self._rows:
            self._rows.move_to_end(prefix)
            return None
        if not self._free:
            victim = next((known for known in self._rows if self._may_lose(known)), None)
            if victim is None:
                return None
            self.forget(victim)
        row = self._rows[prefix] = self._free.pop()
        self._written.add(prefix)
        return row

    def forget(self, prefix: int) -> None:
        """The blocks of a prefix are no more: its row, if it has one, is free."""
        self._reserved.discard(prefix)
        row = self._rows.pop(prefix, None)
        if row is None:
            return
        if prefix in self._written:
            self._written.remove(prefix)
            self._late.append(row)
        else:
            self._free.append(row)

    def reserve(self, prefix: int) -> None:
        """Its row, or the one it is to get, is its own as long as its blocks are there, or until
        `unreserve`. At most half of all rows are reserved; beyond that nothing happens."""
        if len(self._reserved) < max(1, self.num_rows // 2):
            self._reserved.add(prefix)

    def unreserve(self, prefix: int) -> None:
        """Undoes `reserve`."""
        self._reserved.discard(prefix)

    def end_step(self) -> None:
        """The step is planned: the next one can read what it writes."""
        self._written.clear()
        self._free += self._late
        self._late = []

    def check_integrity(self, prefixes: Collection[int]) -> None:
        """Every row is free or one prefix's, and no prefix has one that is not among those that
        the block pool knows.

        Raises:
            EngineError: it is not so; the text has the numbers.
        """
        rows = sorted([*self._free, *self._late, *self._rows.values()])
        lost = [prefix for prefix in self._rows if prefix not in prefixes]
        if rows != list(range(self.num_rows)) or lost or not self._written <= self._rows.keys():
            raise EngineError(
                f"kept states are inconsistent: {len(self._free)} rows free + {len(self._late)} on their way + "
                f"{len(self._rows)} used of {self.num_rows}, {len(lost)} of prefixes that have no blocks"
            )

    def _may_lose(self, prefix: int) -> bool:
        return prefix not in self._reserved and prefix not in self._written
