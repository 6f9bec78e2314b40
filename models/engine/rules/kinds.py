"""What kinds of values a rule's parameters have: which are taken, in words and as JSON Schema,
and which of them are tokens.

A kind takes values as Python, YAML and JSON have them alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final

MAX_TOKEN_ID: Final = 2**31 - 1
MAX_COUNT: Final = 2**31 - 1
MAX_SHOWN: Final = 100
"""Characters of a value that an error repeats."""


class MisfitError(ValueError):
    """A value that a kind does not take: `given`, which is the whole value if `at` is None, else
    the item of it there."""

    def __init__(self, given: object, at: int | str | None = None) -> None:
        super().__init__(given, at)
        self.given, self.at = given, at

    def text(self, kind: "Kind") -> str:
        """What was given and what is allowed, to stand behind a name."""
        given = repr(self.given)
        cut = given if len(given) <= MAX_SHOWN else f"{given[:MAX_SHOWN]}... ({len(given)} characters)"
        return f"was {cut}; it must be {kind.allowed}"


class Kind(ABC):
    """See the module."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What is taken, in words behind "it must be"."""

    @property
    @abstractmethod
    def schema(self) -> Mapping[str, Any]:
        """What is taken, as JSON Schema says it."""

    @abstractmethod
    def taken(self, value: object) -> Any:
        """The value as a rule has it.

        Raises:
            MisfitError: it is not taken.
        """

    def token_ids(self, value: Any) -> Collection[int]:
        """The tokens that a taken value names, which have to be in the vocabulary."""
        del value
        return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Number(Kind):
    """A number from `least` to `most`; if it is `above`, `least` itself is not taken."""

    least: float
    most: float
    above: bool = False

    @property
    def allowed(self) -> str:
        if self.above:
            return f"a number over {self.least:g} and at most {self.most:g}"
        return f"a number from {self.least:g} to {self.most:g}"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "number", "exclusiveMinimum" if self.above else "minimum": self.least, "maximum": self.most}

    def taken(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or (self.above and value == self.least):
            raise MisfitError(value)
        if not self.least <= value <= self.most:  # type: ignore[operator]  # the numeric tower has no types
            raise MisfitError(value)
        return float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole(Kind):
    """A whole number from `least` to `most`; `limit` names what bounds it beside that."""

    least: int
    most: int = MAX_COUNT
    limit: str | None = None

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.limit or self.most}"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def taken(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise MisfitError(value)
        if not self.least <= value <= self.most:  # type: ignore[operator]  # the numeric tower has no types
            raise MisfitError(value)
        return int(value)


_TOKEN = Whole(least=0, most=MAX_TOKEN_ID)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenIds(Kind):
    """A list of at least one token id, or None."""

    @property
    def allowed(self) -> str:
        return "a list of at least one token id, or null"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "array", "items": _TOKEN.schema, "minItems": 1}

    def taken(self, value: object) -> tuple[int, ...] | None:
        return None if value is None else tuple(_each(value, _TOKEN, least=1))

    def token_ids(self, value: Sequence[int] | None) -> Collection[int]:
        return value or ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text(Kind):
    max_chars: int

    @property
    def allowed(self) -> str:
        return f"a text of 1 to {self.max_chars} characters"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": self.max_chars}

    def taken(self, value: object) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= self.max_chars:
            raise MisfitError(value)
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts(Kind):
    """A list of texts, none empty, each of at most `max_chars` characters."""

    max_chars: int

    @property
    def allowed(self) -> str:
        return f"a list of texts of 1 to {self.max_chars} characters"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "array", "items": _Text(max_chars=self.max_chars).schema}

    def taken(self, value: object) -> tuple[str, ...]:
        return tuple(_each(value, _Text(max_chars=self.max_chars), least=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenNumbers(Kind):
    """A mapping from token ids to numbers from `least` to `most`. An id may be written as text,
    since JSON has no other keys."""

    least: float
    most: float

    @property
    def allowed(self) -> str:
        return f"a mapping from token ids to numbers from {self.least:g} to {self.most:g}"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]+$"},
            "additionalProperties": self._number.schema,
        }

    def taken(self, value: object) -> dict[int, float]:
        if not isinstance(value, Mapping):
            raise MisfitError(value)
        found: dict[int, float] = {}
        for name, number in value.items():
            token = _token_of(name)
            if token in found:
                raise MisfitError(name, at=str(name))
            try:
                found[token] = self._number.taken(number)
            except MisfitError:
                raise MisfitError(number, at=str(name)) from None
        return found

    def token_ids(self, value: Mapping[int, float]) -> Collection[int]:
        return value.keys()

    @property
    def _number(self) -> Number:
        return Number(least=self.least, most=self.most)


def _token_of(name: object) -> int:
    """A token id that is a key; text counts if it is written in at most ten digits."""
    is_written = isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= 10
    try:
        return _TOKEN.taken(int(name) if is_written else name)  # type: ignore[call-overload]
    except MisfitError:
        raise MisfitError(name, at=str(name)) from None


def _each(value: object, kind: Kind, *, least: int) -> list[Any]:
    """Every item of a list as a kind takes it."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) < least:
        raise MisfitError(value)
    found = []
    for index, item in enumerate(value):
        try:
            found.append(kind.taken(item))
        except MisfitError:
            raise MisfitError(item, at=index) from None
    return found
