"""When a fault of our own no longer counts as a single row's: several units in succession met the
same one."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.errors import InternalError, OverrunsError

MAX_UNITS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What our own code failed of, with the name that it has wherever it is the same, and the row of the input that it met."""

    name: str
    message: str
    path: str
    row: int
    is_overrun: bool = False


class FaultStreak:
    """Follows units as they come to an end."""

    def __init__(self) -> None:
        self._lengths: dict[str, int] = {}

    def add(self, faults: Iterable[Fault]) -> None:
        """Takes note of the faults of one unit more.

        Raises:
            InternalError: it is the third in a row with the same one.
            OverrunsError: it is the third in a row whose rows went over the limits of preparing them.
        """
        met = {fault.name: fault for fault in faults}
        self._lengths = {name: self._lengths.get(name, 0) + 1 for name in met}
        for name, length in self._lengths.items():
            if length >= MAX_UNITS:
                fault = met[name]
                if fault.is_overrun:
                    raise OverrunsError(
                        f"{length} units in a row were given up, the last in {fault.path} from row {fault.row} on: {fault.message}; "
                        "what is committed stays"
                    )
                raise InternalError(
                    f"{length} units in a row met the same fault of Millrace, the last in {fault.path}, row {fault.row}: "
                    f"{fault.message}; what is committed stays. Please report it with that row"
                )
