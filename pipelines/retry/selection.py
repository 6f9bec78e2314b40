"""Which dead letters are tried again: a rule that any process can apply to the letters of a
unit."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipelines.retry.condition import Condition
from pipelines.retry.letters import DeadLetter


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Letters of one of `kinds` (empty: of any) for which `condition` holds (None: any), none
    behind `last`: a unit and a row of its file (None: all). Picklable."""

    kinds: Collection[str] = ()
    condition: Condition | None = None
    last: tuple[int, int] | None = None

    def of(self, unit: int, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those of a unit's letters that are meant.

        Raises:
            SelectionError: the condition cannot be told of one.
        """
        return [letter for letter in letters if self._has(unit, letter)]

    def _has(self, unit: int, letter: DeadLetter) -> bool:
        if self.last is not None and (unit, letter.row) > self.last:
            return False
        if self.kinds and letter.kind not in self.kinds:
            return False
        return self.condition is None or self.condition.holds(letter.values)
