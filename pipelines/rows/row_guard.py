"""No row stops a run: a row on which our code fails is set apart, and the rows beside it go on.

    guarded(num_rows, attempt, probe)     # a stage of a unit: all rows at once, and where that fails, without the rows it fails on

A stage works on whole units. Where it raises, the rows that it raises on alone are found by halving, and become dead letters of the
kind `internal_error`, which say where in our code. What is raised over no row in particular is the unit's. What has a meaning for the
run (a file that cannot be read, a folder that cannot be written) passes through.
"""

import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from pipelines.errors import LeaseError, OutputError, RowError, SourceError
from pipelines.kinds import INTERNAL_ERROR
from pipelines.rows.rows import BoolArray

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MEANT: Final = (SourceError, OutputError, LeaseError, MemoryError)
"""What a stage raises about its unit or about the run, and not because of a row."""

MAX_TEXT: Final = 300
_OURS: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("models", "actors", "pipelines")


def guarded(
    num_rows: int, attempt: Callable[[Mapping[int, RowError]], Result], probe: Callable[[BoolArray], object]
) -> Result:
    """What `attempt` makes of a unit of `num_rows`, given the rows [positions] that are set apart with their errors: none at first.
    `probe` does the same to the rows where its argument [N] is true, and leaves nothing behind.

    Raises:
        Exception: what `attempt` raised, where no row alone is the cause.
    """
    try:
        return attempt({})
    except MEANT:
        raise
    except Exception as error:
        logger.warning("a unit is tried row by row after %s", describe_fault(error), exc_info=True)
        faulty = faulty_rows(num_rows, probe)
        if not faulty:
            raise
        return attempt(faulty)


def faulty_rows(num_rows: int, probe: Callable[[BoolArray], object]) -> dict[int, RowError]:
    """The rows on which `probe` raises alone, with what it raises."""
    faulty: dict[int, RowError] = {}
    stretches = [(0, num_rows)] if num_rows else []
    while stretches:
        start, end = stretches.pop()
        try:
            probe(_stretch(num_rows, start, end))
        except MEANT:
            raise
        except Exception as error:  # noqa: BLE001 - the row boundary
            if end - start == 1:
                faulty[start] = row_error(error)
            else:
                middle = (start + end) // 2
                stretches += [(middle, end), (start, middle)]
    return dict(sorted(faulty.items()))


def _stretch(num_rows: int, start: int, end: int) -> BoolArray:
    keep = np.zeros(num_rows, np.bool_)
    keep[start:end] = True
    return keep


def row_error(error: Exception) -> RowError:
    """A failure of our own code over one row."""
    return RowError(INTERNAL_ERROR, describe_fault(error))


def describe_fault(error: Exception) -> str:
    """Where in our code an exception comes from, its type, its text: `pipelines/templates/templates.py:71 in render: KeyError: 'a'`."""
    text = str(error)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}…"
    return f"{_code_line(error)}: {type(error).__name__}: {text}"


def fault_name(text: str) -> str:
    """What is the same in all descriptions of one fault: the place and the type."""
    return ": ".join(text.split(": ", 2)[:2])


def _code_line(error: BaseException) -> str:
    """The innermost place of ours in the traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_OURS) and path.relative_to(_OURS).parts[0] in _PACKAGES:
            return f"{path.relative_to(_OURS).as_posix()}:{frame.lineno} in {frame.name}"
    return "outside of Millrace"


def unit_fault(error: Exception) -> str:
    """A failure of our own code over a whole unit, in a line; the traceback goes to the log."""
    text = describe_fault(error)
    logger.error("a unit failed: %s", text, exc_info=error)
    return text
