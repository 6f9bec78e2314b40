"""The exception tree of `jobs`: what ends a command with exit status 2 and one clear message.

JobError
├── SpecError      the spec is wrong; one line a problem, each with its place
└── UsageError     an argument or the environment is wrong
"""

from collections.abc import Sequence


class JobError(Exception):
    """Base of everything `jobs` raises on purpose."""


class SpecError(JobError):
    """A job spec cannot be used. Each problem is one line: the place in the YAML, the key, what was given, what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class UsageError(JobError):
    """An argument of a command, or the environment, cannot be used."""
