"""Standard streams that cannot end a command: what is said to people on stderr is best effort, whatever has become of stderr.

A stream that is closed when the process starts leaves its number to the next file that is opened, and whatever native code says then
lands in that file. One that breaks later (a full disk, a pipe whose reader left, a terminal that is gone) raises where it is written to,
and once more when Python ends, which then changes the exit status.
"""

import contextlib
import io
import os
import sys

_STDIN, _STDOUT, _STDERR = range(3)


def secure_standard_streams() -> None:
    """Opens the null device in the place of standard streams that are closed, and makes `sys.stderr` one that never raises."""
    for number in (_STDIN, _STDOUT, _STDERR):
        _ensure_open(number)
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=BestEffortText.errors)
    sys.stderr = BestEffortText(_STDERR)


def _ensure_open(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(
            os.devnull, os.O_RDWR
        )  # the lowest free number, which is this one unless a lower one is free too
        if null != number:
            os.dup2(null, number)
            os.close(null)


class BestEffortText(io.TextIOBase):
    """Text to a file descriptor, at once and without a buffer; what cannot be written is lost, and the next write is tried again."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        rest = text.encode(self.encoding, self.errors)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)
