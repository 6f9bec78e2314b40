"""One JSON object of a checkpoint folder, read field by field with the error text every field shares.

Knows what a whole number, a flag or a token id looks like; not what any field means.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from models.checkpoint.files import why_it_is_no_folder, why_there_is_no_config
from models.checkpoint.shown import shown
from models.checkpoint.whole_files import read_whole
from models.config.limits import MAX_INTEGER, MAX_NUMBER, MAX_TOKEN_IDS
from models.errors import ConfigError

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigFields:
    """The values of one JSON object.

    `null` counts as absent; `within` is the dotted place of the object inside its file, with a dot at its end. Every
    reader raises ConfigError, naming the file, the field, what was given and what is allowed.
    """

    file: Path
    values: Mapping[str, Any]
    within: str = ""

    @classmethod
    def read(cls, file: Path) -> "ConfigFields":
        """Reads a file.

        Raises:
            ConfigError: there is no such file, or it is not a JSON object.
        """
        try:
            values = json.loads(read_whole(file))
        except FileNotFoundError as error:
            raise ConfigError(_why_there_is_no_config(file.parent)) from error
        except NotADirectoryError as error:
            raise ConfigError(why_it_is_no_folder(file.parent)) from error
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{file} is not valid JSON ({error}); download it again") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{file} holds {type(values).__name__}; it must hold one JSON object")
        return cls(file=file, values=values)

    def error(self, name: str, allowed: str, *, note: str = "") -> ConfigError:
        """The error of one field; the caller raises it."""
        given = f"was {shown(self.values[name])}" if name in self.values else "is absent"
        return ConfigError(f"{self.file}: {self.within}{name} {given}{note}; it must be {allowed}")

    def integer(self, name: str, default: int, *, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
        """A whole number from `minimum` to `maximum`."""
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.error(name, f"a whole number from {minimum} to {maximum:,}")
        return value

    def optional_integer(self, name: str, default: int | None) -> int | None:
        """A whole number from 1, or None if the file says null. The default is for an absent field
        only."""
        return None if self.values.get(name, default) is None else self.integer(name, default or 1)

    def number(self, name: str, default: float, *, maximum: float = MAX_NUMBER) -> float:
        """A number over 0 and at most `maximum`."""
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= maximum:
            raise self.error(name, f"a number over 0, at most {maximum:g}")
        return float(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        """Either true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def choice(self, name: str, allowed: Sequence[Name], default: Name | None = None) -> Name:
        """One of the names listed."""
        value = self._value(name, default)
        if value not in allowed:
            raise self.error(name, f"one of {', '.join(allowed)}")
        return cast(Name, value)

    def strings(self, name: str) -> list[str] | None:
        """A list of strings, or None if it is absent."""
        value = self.values.get(name)
        if value is not None and (not isinstance(value, list) or not all(isinstance(item, str) for item in value)):
            raise self.error(name, "a list of strings")
        return value

    def nested(self, name: str) -> "ConfigFields":
        """The object under this name; an empty one if it is absent."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise self.error(name, "an object")
        return ConfigFields(file=self.file, values=value, within=f"{self.within}{name}.")

    def token_id(self, name: str, default: int | None = None) -> int | None:
        """A token id, or None if the file says null. The default is for an absent field only."""
        return None if self.values.get(name, default) is None else self.integer(name, default or 0, minimum=0)

    def token_ids(self, name: str, default: int | None = None) -> tuple[int, ...]:
        """One token id or a list of them, without repeats; empty where the file says null. The default is for an absent
        field only."""
        value = self.values.get(name, default)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        is_ids = all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MAX_INTEGER for item in ids)
        if len(ids) > MAX_TOKEN_IDS or not is_ids:
            raise self.error(name, f"a token id, or a list of at most {MAX_TOKEN_IDS:,} token ids")
        return tuple(dict.fromkeys(ids))

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value


def _why_there_is_no_config(folder: Path) -> str:
    if not folder.is_dir():
        return why_it_is_no_folder(folder)
    return why_there_is_no_config(str(folder), [path.name for path in folder.iterdir()])
