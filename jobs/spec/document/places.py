"""A document with places: every value, and the line or the `--set` that each key stands on.

Knows `--set`, not what the keys mean.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import SpecError, shown
from jobs.spec.document.key_paths import KeyPath, dotted
from jobs.spec.document.yaml_reading import SECRETS, read_yaml

_MAX_SET_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where each key path of a document was written: a line of the file, or the `--set` that gave it.

    `literal_lines` holds the first line of the text of every literal block (`|`), so that a line in the text has a line in the file.
    """

    file: str
    lines: Mapping[KeyPath, int]
    literal_lines: Mapping[KeyPath, int]
    overrides: Mapping[KeyPath, str]

    def of(self, path: KeyPath) -> str:
        """`file:line` of the key, or of the nearest key above it that was written; `--set ...` if an override gave it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overrides:
                return _set(self.overrides[path[:end]])
            if path[:end] in self.lines:
                break
        return f"{self.file}:{self.line_of(path)}" if self.lines else self.file

    def has(self, path: KeyPath) -> bool:
        """Whether the key itself was written, in the document or in an override."""
        return path in self.lines or path in self.overrides

    def line_of(self, path: KeyPath) -> int:
        """The line of the key, or of the nearest key above it that was written; 0 if an override gave it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overrides:
                return 0
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 0

    def problem(self, path: KeyPath, text: str) -> str:
        """One line for a `SpecError`: place, key path, text."""
        return ": ".join(part for part in (self.of(path), dotted(path), text) if part)

    def problem_in_text(self, path: KeyPath, line: int, text: str) -> str:
        """As `problem`, for line number `line` (from 1) of the text that is this key's value."""
        if path in self.literal_lines and path not in self.overrides:
            return f"{self.file}:{self.literal_lines[path] + line - 1}: {dotted(path)}: {text}"
        return self.problem(path, f"line {line} of the text: {text}" if line > 1 else text)


@dataclass(frozen=True, kw_only=True, slots=True)
class YamlDocument:
    """A YAML mapping as plain values, with the places of its keys."""

    values: dict[str, Any]
    places: Places


def read_document(path: Path, overrides: Sequence[str] = ()) -> YamlDocument:
    """Reads one YAML mapping and applies `--set` overrides (`a.b=c`, the value read as YAML) in order.

    Raises:
        SpecError: the file cannot be read, is not a YAML mapping, names a key twice, or an
            override does not fit.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SpecError([f"{path}: the spec cannot be read: {error.strerror}; give the path of a YAML file"]) from error
    except UnicodeDecodeError as error:
        raise SpecError([f"{path}: the spec is not UTF-8 text (byte {error.start}); save it as UTF-8"]) from error
    read = read_yaml(text, lambda line: f"{path}:{line}")
    if not isinstance(read.value, dict):
        raise SpecError([f"{path}:1: a spec is a mapping of keys to values (name: ..., model: ..., task: ...)"])
    return _document(str(path), read.value, read.lines, read.literal_lines, overrides)


def document_of(values: Mapping[str, Any], name: str, overrides: Sequence[str] = ()) -> YamlDocument:
    """A document from values that stand in no file; `name` stands in the place of one. Applies overrides as `read_document` does.

    Raises:
        SpecError: an override does not fit.
    """
    return _document(name, copy.deepcopy(dict(values)), {}, {}, overrides)


def _document(
    file: str,
    values: dict[str, Any],
    lines: dict[KeyPath, int],
    literal_lines: dict[KeyPath, int],
    overrides: Sequence[str],
) -> YamlDocument:
    given: dict[KeyPath, str] = {}
    for override in overrides:
        target = _apply(values, override)
        for stale in [key for key in lines if key[: len(target)] == target]:
            del lines[stale]
        given[target] = override
    return YamlDocument(
        values=values,
        places=Places(file=file, lines=lines, literal_lines=literal_lines, overrides=given),
    )


def _apply(values: dict[str, Any], override: str) -> KeyPath:
    """Writes one `a.b=c` into `values` and returns its key path; a number in the path is an index into a list."""
    name, equals, source = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise _misfit(override, "an override is written KEY.KEY=VALUE, such as task.sampling.max_tokens=64")
    place: Any = values
    path: KeyPath = ()
    for part in parts[:-1]:
        key = _key(place, part, override, path)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place, path = place[key], (*path, key)
    last = _key(place, parts[-1], override, path)
    path = (*path, last)
    place[last] = read_yaml(source, lambda _line: _set(override), base=path).value
    return path


def _key(place: Any, part: str, override: str, path: KeyPath) -> str | int:
    """`part` as a key of `place`: text for a mapping, the number of an item that exists for a list."""
    if isinstance(place, dict):
        return part
    if isinstance(place, list):
        indices = {str(index): index for index in range(len(place))}
        if part in indices:
            return indices[part]
        kind = f"a list of {len(place)}" + (f" (its items are 0 to {len(place) - 1})" if place else "")
    else:
        kind = shown(place) if SECRETS not in path else "a value that is not shown"
    raise _misfit(override, f"{dotted(path) or 'the spec'} is {kind}, which has no {part!r}")


def _misfit(override: str, text: str) -> SpecError:
    return SpecError([f"{_set(override)}: {text}"])


def _set(override: str) -> str:
    """An override as a place: its key, cut where it is long. The value may be a secret."""
    key = override.partition("=")[0].strip()
    return "--set " + (key or "''" if len(key) <= _MAX_SET_CHARS else f"{key[:_MAX_SET_CHARS]}...")
