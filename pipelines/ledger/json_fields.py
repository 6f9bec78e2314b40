"""A JSON object that is asked for its values by name and type: what a file of the ledger holds is believed no sooner.

    fields = Fields(orjson.loads(content))
    fields.count("num_rows"), fields.text("name"), fields.object("plan").count("num_units")

Everything that is missing or of another type is a `ValueError` that names the key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_COUNT = (1 << 53) - 1
"""The largest whole number that every reader of JSON keeps."""
MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of one object; `place` stands before the names of its keys in errors."""

    values: Mapping[str, Any]
    place: str = ""

    def text(self, name: str) -> str:
        """A string."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self._refusal(name, "a text")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string or null."""
        return None if self.is_null(name) else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._value(name)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise self._refusal(name, "a list of texts")

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of numbers."""
        value = self._value(name)
        if isinstance(value, list) and all(map(_is_number, value)):
            return tuple(map(float, value))
        raise self._refusal(name, "a list of numbers")

    def number(self, name: str) -> float:
        """A number."""
        value = self._value(name)
        if not _is_number(value):
            raise self._refusal(name, "a number")
        return float(value)

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """One of a few strings."""
        value = self.text(name)
        if value not in allowed:
            raise self._refusal(name, f"one of {', '.join(allowed)}")
        return value

    def count(self, name: str) -> int:
        """A whole number from 0 on."""
        value = self._value(name)
        if not _is_count(value):
            raise self._refusal(name, "a count")
        return int(value)

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 on."""
        value = self._value(name)
        if isinstance(value, list) and all(map(_is_count, value)):
            return tuple(map(int, value))
        raise self._refusal(name, "a list of counts")

    def seconds(self, name: str) -> float:
        """A number from 0 to some thirty years."""
        value = self._value(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_SECONDS:
            raise self._refusal(name, "a duration")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            raise self._refusal(name, "true or false")
        return value

    def object(self, name: str) -> "Fields":
        """An object within the object."""
        value = self._value(name)
        if not isinstance(value, dict):
            raise self._refusal(name, "an object")
        return Fields(value, f"{self.place}{name}.")

    def objects(self, name: str) -> "list[Fields]":
        """A list of objects."""
        value = self._value(name)
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return [Fields(item, f"{self.place}{name}[{index}].") for index, item in enumerate(value)]
        raise self._refusal(name, "a list of objects")

    def is_null(self, name: str) -> bool:
        """Whether the value is null; a key that is missing is an error here too."""
        return self._value(name) is None

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"it has no {self.place}{name}")
        return self.values[name]

    def _refusal(self, name: str, wanted: str) -> ValueError:
        shown = repr(self.values[name])
        return ValueError(f"its {self.place}{name} is {shown[:40]}{'…' * (len(shown) > 40)}, which is not {wanted}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
