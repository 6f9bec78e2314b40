"""What a worker tells of its progress while it works: which item it has begun with, in memory that both sides map."""

import mmap
import os
import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct("=qqd")  # a serial number, the item, the seconds that it may take beside the limit
_NO_ITEM = -1


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """The step that a worker is in: its `serial` number, counted over all calls, the item's `number`, None before the
    first, and the seconds it may take beside the limit."""

    serial: int
    number: int | None
    seconds: float


class SharedSteps:
    """The memory, of which one side has the file descriptor of the other."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _LAYOUT.size)

    @staticmethod
    def create() -> int:
        """The descriptor of new shared memory."""
        descriptor = os.memfd_create("millrace-steps")
        os.ftruncate(descriptor, _LAYOUT.size)
        return descriptor

    def begin(self, number: int = _NO_ITEM, seconds: float = 0.0) -> None:
        """A step begins."""
        serial: int = _LAYOUT.unpack_from(self._memory)[0]
        _LAYOUT.pack_into(self._memory, 0, serial + 1, number, seconds)

    def read(self) -> WorkerStep:
        """The step that was begun last."""
        serial, number, seconds = _LAYOUT.unpack_from(self._memory)
        return WorkerStep(serial, None if number == _NO_ITEM else number, seconds)

    def close(self) -> None:
        self._memory.close()


_steps: SharedSteps | None = None


def step(number: int, seconds: float = 0.0) -> None:
    """Says, in a worker, that item `number` (0 or more) is begun with, and may take `seconds` beside the limit. Does
    nothing in any other process."""
    if _steps is not None:
        _steps.begin(number, seconds)


def tell_through(steps: SharedSteps) -> None:
    """From now on `step` of this process writes there."""
    global _steps  # noqa: PLW0603  a process is a worker or not, from its first moment
    _steps = steps
