"""YAML with places: every value of a document, and the line each key stands on.

Knows YAML and `--set`, not what the keys mean.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.errors import SpecError

KeyPath = tuple[str | int, ...]
MAX_NODES = 100_000


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
                return f"--set {self.overrides[path[:end]]}"
            if path[:end] in self.lines:
                break
        return f"{self.file}:{self.line_of(path)}" if self.lines else self.file

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
class Document:
    """A YAML mapping as plain values, with the places of its keys."""

    values: dict[str, Any]
    places: Places


def dotted(path: KeyPath) -> str:
    """`("task", "labels", 0)` as people write it: `task.labels[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def key_path(name: str) -> KeyPath:
    """The other way round: `task.labels[0]` as `("task", "labels", 0)`."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", name))


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Reads one YAML mapping and applies `--set` overrides (`a.b=c`, the value read as YAML) in order.

    Raises:
        SpecError: the file cannot be read, is no YAML mapping, names a key twice, or an override does not fit.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SpecError([f"{path}: the spec cannot be read: {error.strerror}; give the path of a YAML file"]) from error
    except UnicodeDecodeError as error:
        raise SpecError([f"{path}: the spec is not UTF-8 text (byte {error.start}); save it as UTF-8"]) from error
    values, lines, literal_lines = _parse(text, str(path))
    return _document(str(path), values, lines, literal_lines, overrides)


def document_of(values: Mapping[str, Any], name: str, overrides: Sequence[str] = ()) -> Document:
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
) -> Document:
    given: dict[KeyPath, str] = {}
    for override in overrides:
        target = _apply(values, override)
        for stale in [key for key in lines if key[: len(target)] == target]:
            del lines[stale]
        given[target] = override
    return Document(
        values=values,
        places=Places(file=file, lines=lines, literal_lines=literal_lines, overrides=given),
    )


def _parse(text: str, file: str) -> tuple[dict[str, Any], dict[KeyPath, int], dict[KeyPath, int]]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise SpecError([f"{file}:1: a spec is a mapping of keys to values (name: ..., model: ..., task: ...)"])
        lines: dict[KeyPath, int] = {(): root.start_mark.line + 1}
        literal_lines: dict[KeyPath, int] = {}
        for number, (path, key, value) in enumerate(_walk(root, (), file)):
            if number >= MAX_NODES:
                raise SpecError([f"{file}: the spec holds over {MAX_NODES} values (are its aliases nested?)"])
            lines[path] = key.start_mark.line + 1
            if isinstance(value, yaml.ScalarNode) and value.style == "|":
                literal_lines[path] = value.start_mark.line + 2
        values = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError([f"{file}:{line}: this is no YAML: {error.problem or error}"]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError([f"{file}: this is no YAML: {error}"]) from error
    finally:
        loader.dispose()
    return values, lines, literal_lines


def _walk(node: yaml.Node, path: KeyPath, file: str) -> Iterator[tuple[KeyPath, yaml.Node, yaml.Node]]:
    """(path, the node that names it, the node that is its value) of everything below `node`, depth first."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                here = f"{file}:{line}: {dotted(path)}".removesuffix(": ")
                raise SpecError(
                    [f"{here}: a key must be text; YAML reads {_source(key)} as another type, so put it in quotes"]
                )
            if key.value in seen:
                where = dotted((*path, key.value))
                raise SpecError(
                    [f"{file}:{line}: {where}: the key stands twice, first on line {seen[key.value]}; keep one"]
                )
            seen[key.value] = line
            yield (*path, key.value), key, value
            yield from _walk(value, (*path, key.value), file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item, item
            yield from _walk(item, (*path, index), file)


def _source(key: yaml.Node) -> str:
    return repr(key.value) if isinstance(key, yaml.ScalarNode) else "this key"


def _apply(values: dict[str, Any], override: str) -> KeyPath:
    """Writes one `a.b=c` into `values` and returns its key path; a number in the path is an index into a list."""
    name, equals, source = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise SpecError(
            [f"--set {override}: an override is written KEY.KEY=VALUE, such as task.sampling.max_tokens=64"]
        )
    try:
        value = yaml.safe_load(source)
    except yaml.YAMLError as error:
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise SpecError(
            [f"--set {override}: the value is no YAML ({problem}); put text with special characters in quotes"]
        ) from error
    place: Any = values
    path: list[str | int] = []
    for part in parts[:-1]:
        key = _key(place, part, override, path)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[key]
        path.append(key)
    last = _key(place, parts[-1], override, path)
    place[last] = value
    return (*path, last)


def _key(place: Any, part: str, override: str, path: Sequence[str | int]) -> str | int:
    """`part` as a key of `place`: text for a mapping, the number of an item that exists for a list."""
    if isinstance(place, dict):
        return part
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        return int(part)
    kind = f"a list of {len(place)} (its items are 0 to {len(place) - 1})" if isinstance(place, list) else f"{place!r}"
    raise SpecError([f"--set {override}: {dotted(tuple(path)) or 'the spec'} is {kind}, which has no {part!r}"])
