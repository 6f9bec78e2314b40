"""A JSON object that is asked for its values by name and type: what a file of the ledger holds is believed no sooner.

    fields = Fields(orjson.loads(content))
    fields.count("num_rows"), fields.text("name"), fields.object("plan").count("num_units")

Everything that is missing or of another type is a `ValueError` that names the key.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_COUNT = (1 << 53) - 1
"""The largest whole number that every reader of JSON keeps."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of one object; `place` stands before the names of its keys in errors."""

    values: Mapping[str, Any]
    place: str = ""

    def text(self, name: str) -> str:
        """A string."""
        value = self._value(name)
        return value if isinstance(value, str) else self._refuse(name, "a text")

    def optional_text(self, name: str) -> str | None:
        """A string or null."""
        return None if self.is_null(name) else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._value(name)
        is_right = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return tuple(value) if is_right else self._refuse(name, "a list of texts")

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """One of a few strings."""
        value = self.text(name)
        return value if value in allowed else self._refuse(name, f"one of {', '.join(allowed)}")

    def count(self, name: str) -> int:
        """A whole number from 0 on."""
        value = self._value(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
            return value
        self._refuse(name, "a count")

    def seconds(self, name: str) -> float:
        """A finite number from 0 on."""
        value = self._value(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and math.isfinite(value) and value >= 0 else self._refuse(name, "a duration")

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._value(name)
        return value if isinstance(value, bool) else self._refuse(name, "true or false")

    def object(self, name: str) -> "Fields":
        """An object within the object."""
        value = self._value(name)
        return Fields(value, f"{self.place}{name}.") if isinstance(value, dict) else self._refuse(name, "an object")

    def is_null(self, name: str) -> bool:
        """Whether the value is null; a key that is missing is an error here too."""
        return self._value(name) is None

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"it has no {self.place}{name}")
        return self.values[name]

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        shown = repr(self.values[name])
        raise ValueError(f"its {self.place}{name} is {shown[:40]}{'…' * (len(shown) > 40)}, which is not {wanted}")
