"""Logging, set up here and nowhere else: one line an event, on stderr.

The environment variable `MILLRACE_LOG` sets the level (debug, info, warning, error); without it warnings and worse are shown.
"""

import logging
import os
import sys
from typing import TextIO

from jobs.errors import UsageError

LEVELS = ("debug", "info", "warning", "error")
PACKAGES = ("models", "actors", "pipelines", "jobs")


class _CurrentStderr(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment, so that lines stand above a live progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging() -> None:
    """Gives the project's loggers one handler; calling it again changes nothing.

    Raises:
        UsageError: MILLRACE_LOG names no level.
    """
    level = os.environ.get("MILLRACE_LOG", "warning").lower()
    if level not in LEVELS:
        raise UsageError(f"the environment variable MILLRACE_LOG was {level!r}; it must be one of {', '.join(LEVELS)}")
    handler = _CurrentStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(level.upper())
        logger.propagate = False
        if not any(isinstance(each, _CurrentStderr) for each in logger.handlers):
            logger.addHandler(handler)
