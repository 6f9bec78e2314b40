"""The exception tree of `jobs`: what ends a command with one clear message.

JobError           exit status 2
├── SpecError      the spec is wrong; one line a problem, each with its place
└── UsageError     an argument or the environment is wrong
FailedError        exit status 1: a cluster or a service did not do what it was asked
"""

import re
from collections.abc import Sequence
from typing import Any

MAX_SHOWN_CHARS = 60
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


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


def in_a_line(text: str) -> str:
    """The text with an escape for every character that would break a line, or change what a terminal shows."""
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def shown(given: Any) -> str:
    """What was given, as a message shows it: in Python's words, cut where it is long."""
    text = repr(given)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 3]}..."
