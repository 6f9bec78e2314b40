"""What became of a unit at the end of the graph: all that the driver ever learns of it.

A failure that has a meaning for the run travels as an outcome, never as an exception: Ray Data would end the whole execution for it, with
a traceback in place of the reason.
"""

from dataclasses import dataclass

from pipelines.ledger.receipts import Receipt
from pipelines.rows.streak import Fault
from pipelines.rows.unit import UnreadableUnit


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A unit that is committed, and what of our own code failed on rows of it, one of each kind."""

    receipt: Receipt
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A unit that was not begun, because the run starts no new ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Halted:
    """The run cannot go on: its results cannot be written, or it has lost the output folder."""

    message: str


UnitOutcome = Committed | UnreadableUnit | LeftOut | Halted
