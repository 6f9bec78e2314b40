"""The exception tree of `jobs`: what ends a command with one clear message.

JobError           exit status 2
├── SpecError      the spec is wrong; one line a problem, each with its place
└── UsageError     an argument or the environment is wrong
FailedError        exit status 1: a cluster or a service did not do what it was asked
"""

from collections.abc import Sequence
from typing import Any

from jobs.show.terminal import in_a_line
from models.checkpoint.url_secrets import redacted

MAX_SHOWN_CHARS = 60


class JobError(Exception):
    """Base of everything `jobs` raises on purpose."""


class SpecError(JobError):
    """A job spec cannot be used. Each problem is one line: the place in the YAML, the key, what was given, what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(map(in_a_line, problems))
        super().__init__("\n".join(self.problems))


class UsageError(JobError):
    """An argument of a command, or the environment, cannot be used."""


class FailedError(Exception):
    """Something outside this process failed: a cluster refused a job, a service did not come up or is lost."""


def shown(given: Any) -> str:
    """What was given, as a message shows it: in Python's words, cut where it is long."""
    text = redacted(repr(given))
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 3]}..."
