"""The process boundary: what a command raises becomes one message on stderr and an exit status.

0 done; 1 the run failed, or `check` found something; 2 the spec or the arguments are wrong; 3 `max_failed` was crossed;
130 interrupted. An unexpected error keeps its traceback.
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from jobs.errors import FailedError, JobError
from jobs.logs import set_up_logging
from jobs.show.terminal import escape_standard_streams

FAILED, WRONG, INTERRUPTED = 1, 2, 130

Arguments = ParamSpec("Arguments")


def at_boundary(command: Callable[Arguments, int]) -> Callable[Arguments, None]:
    """A command that returns its exit status, as one that ends the process with it."""

    @functools.wraps(command)
    def ended(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        escape_standard_streams()
        try:
            set_up_logging()
            status = command(*args, **kwargs)
        except KeyboardInterrupt:
            complain("interrupted")
            status = INTERRUPTED
        except JobError as error:
            complain(str(error))
            status = WRONG
        except FailedError as error:
            complain(str(error))
            status = FAILED
        except Exception as error:  # the process boundary: what is expected is told in a line, the rest goes on
            expected = status_of(error)
            if expected is None:
                raise
            complain(str(error))
            status = expected
        raise typer.Exit(status)

    return ended


def status_of(error: Exception) -> int | None:
    """The exit status of an error of ours; None for an unexpected one.

    The trees are imported here: a command that fails has time for it, `millrace --help` has not.
    """
    from actors.errors import ServiceError
    from models.errors import EngineError, ModelError
    from pipelines.errors import (
        ClusterError,
        FingerprintError,
        PipelineError,
        PlanError,
        SelectionError,
        TaskError,
    )

    if isinstance(error, PlanError | TaskError | SelectionError | FingerprintError | ClusterError | ServiceError):
        return WRONG
    if isinstance(error, ModelError):
        return FAILED if isinstance(error, EngineError) else WRONG
    return FAILED if isinstance(error, PipelineError) else None


def complain(message: str) -> None:
    """One message on stderr, under the command's name."""
    sys.stderr.write(f"millrace: {message}\n" if "\n" not in message else f"millrace:\n{message}\n")
