"""What rendering one text may cost: a budget of steps, and how much a filter or operator can make out of what it is
given.

It counts work, never time: whether a text is too costly depends on the text alone, not on the machine's load. Knows
nothing of templates.
"""

import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

MAX_CHARS = 1 << 26
"""Characters of one value, and of a whole rendered text."""

MAX_STEPS = 4_000_000
"""Steps of one rendering: a few seconds."""

CHARS_PER_STEP = 128
"""Characters that are read or made for one step."""

_MAX_INT_BITS = 16_384
_WIDE_PERCENT = re.compile(r"%[^A-Za-z%]*(?:\*|\d{5})")
_WIDE_SPEC = re.compile(r"\d{5}|\{")
_TOO_WIDE = "a format may be at most 9,999 characters wide, and its width stands in the format"


class OverLimitError(SecurityError):
    """A template did more work, or made more text, than one rendering may."""


class Budget:
    """The work left to one rendering."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def charge(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            steps_are = f"a step is a loop turn, an operation, or {CHARS_PER_STEP} characters"
            raise OverLimitError(f"the template took more than {MAX_STEPS:,} steps ({steps_are})")

    def charge_text(self, num_chars: int) -> None:
        if num_chars > MAX_CHARS:
            raise OverLimitError(
                f"the template makes a value of {num_chars:,} characters; at most {MAX_CHARS:,} are allowed"
            )
        self.charge(1 + num_chars // CHARS_PER_STEP)

    def weigh(self, value: object) -> None:
        """Charges a value with everything in it, as often as it is in it."""
        if isinstance(value, str | bytes):
            self.charge_text(len(value))
        elif isinstance(value, dict):
            self.charge(1 + len(value))
            for key, item in value.items():
                self.weigh(key)
                self.weigh(item)
        elif isinstance(value, list | tuple | set | frozenset):
            self.charge(1 + len(value))
            for item in value:
                self.weigh(item)
        elif isinstance(value, range):
            self.charge(1 + len(value))
        else:
            self.charge(1)


def check_product(budget: Budget, left: Any, right: Any) -> None:
    """Charges what `left * right` makes.

    Raises:
        OverLimitError: it is too large to be made.
    """
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | bytes | list | tuple) and isinstance(times, int):
            budget.charge_text(len(value) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def check_power(base: Any, exponent: Any) -> None:
    """Raises OverLimitError if `base ** exponent` is too large a number."""
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * abs(exponent))


def check_percent_format(pattern: Any) -> None:
    """Raises OverLimitError if a pattern for `%` pads without bound."""
    if isinstance(pattern, str) and _WIDE_PERCENT.search(pattern):
        raise OverLimitError(_TOO_WIDE)


def check_brace_format(pattern: str) -> None:
    """Raises OverLimitError if a pattern for `str.format` pads without bound."""
    for _, _, spec, _ in string.Formatter().parse(pattern):
        if spec and _WIDE_SPEC.search(spec):
            raise OverLimitError(_TOO_WIDE)


def check_growth(budget: Budget, name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Charges what the filter or string method `name` makes out of its value and arguments, at most.

    Raises:
        OverLimitError: it is too much to be made.
    """
    growth = _GROWTH.get(name)
    if growth is not None:
        budget.charge_text(growth(value, args))


def _check_bits(num_bits: int) -> None:
    if num_bits > _MAX_INT_BITS:
        raise OverLimitError(
            f"the template computes a number of {num_bits:,} bits; at most {_MAX_INT_BITS:,} are allowed"
        )


def _largest(values: tuple[Any, ...]) -> int:
    return max((abs(value) for value in values if isinstance(value, int)), default=0)


def _longest(values: tuple[Any, ...]) -> int:
    return max((len(value) for value in values if isinstance(value, str | bytes)), default=0)


def _occurrences(value: Any, part: Any) -> int:
    """How often `part` stands in a text; 0 in anything else, which the filter will refuse or print short."""
    if isinstance(value, bytes) and isinstance(part, str):
        part = part.encode()
    is_text = isinstance(value, str | bytes) and isinstance(part, type(value))
    return int(value.count(part)) if is_text else 0


def _replaced(value: Any, args: tuple[Any, ...]) -> int:
    return _occurrences(value, args[0]) * _longest(args[1:2]) if len(args) >= 2 else 0


def _joined(value: Any, args: tuple[Any, ...]) -> int:
    return len(value) * _longest(args) if isinstance(value, list) else 0


# How many characters (or items) each filter or string method that multiplies can make.
_GROWTH: Mapping[str, Callable[[Any, tuple[Any, ...]], int]] = {
    "batch": lambda _, args: _largest(args),
    "center": lambda _, args: _largest(args),
    "expandtabs": lambda value, args: _occurrences(value, "\t") * (_largest(args) or 8),
    "indent": lambda value, args: (_occurrences(value, "\n") + 1) * max(_largest(args), _longest(args)),
    "join": _joined,
    "ljust": lambda _, args: _largest(args),
    "replace": _replaced,
    "rjust": lambda _, args: _largest(args),
    "slice": lambda _, args: _largest(args),
    "tojson": lambda _, args: 100 * _largest(args),
    "wordwrap": lambda value, args: len(value) * _longest(args) if isinstance(value, str) else 0,
    "zfill": lambda _, args: _largest(args),
}
