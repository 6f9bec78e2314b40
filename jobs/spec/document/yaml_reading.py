"""One YAML text as plain values, with the line of every key.

Read from the nodes of YAML's parser, so that whatever stands in a value has a key and a line to be told with: a date that there is not,
a number of 6,000 digits, a tag. Values that an alias repeats are not shared. What a key means is not known here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from jobs.errors import SpecError
from jobs.spec.document.key_paths import KeyPath, dotted

MAX_NODES = 100_000
MAX_DEPTH = 100
MAX_NUMBER_CHARS = 100

SECRETS = "storage_options"
"""The key whose values are not shown, wherever it stands."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_TEXT, _TIME = _TAG + "str", _TAG + "timestamp"
_NUMBERS = (_TAG + "int", _TAG + "float")
_SCALARS = {
    _TEXT: "text",
    _TAG + "int": "whole number",
    _TAG + "float": "number",
    _TAG + "bool": "true or false",
    _TAG + "null": "null",
    _TIME: "date or time",
}
_MAPPING, _LIST = _TAG + "map", _TAG + "seq"
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_SHOWN = 40
_MAX_KEYS_SHOWN = 8

PlaceOf = Callable[[int], str]
"""Where a line is, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class YamlText:
    """The values of a YAML text; `lines` has the line of every key path, the root's included. `literal_lines` has the first line of the
    text of every literal block (`|`), so that a line in the text has a line in the file."""

    value: Any
    lines: dict[KeyPath, int]
    literal_lines: dict[KeyPath, int]


def read_yaml(text: str, place: PlaceOf, *, base: KeyPath = ()) -> YamlText:
    """Reads one YAML document, whose key paths begin with `base`. Of no text the value is null.

    Raises:
        SpecError: it is not YAML, or holds what no spec can mean: all such values, one per line.
    """
    root = _compose(text, place)
    reader = _Reader(place)
    value = None if root is None else reader.value(root, base, depth=1)
    if reader.problems:
        raise SpecError(reader.problems)
    if root is not None:
        reader.lines[base] = _line(root)
    return YamlText(value=value, lines=reader.lines, literal_lines=reader.literal_lines)


class _Loader(yaml.SafeLoader):
    """YAML's own, with an end to how deep values nest."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=_too_deep(), problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _too_deep() -> str:
    return f"values are nested more than {MAX_DEPTH} deep"


def _compose(text: str, place: PlaceOf) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{ord(text[error.position]):04X} cannot stand in YAML"
        remedy = "take it out, or write it as an escape in double quotes"
        raise SpecError([f"{place(line)}: this is no YAML: {what}; {remedy}"]) from error
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        remedy = "text with special characters stands in quotes"
        raise SpecError([f"{place(line)}: this is no YAML: {error.problem or error} ({remedy})"]) from error
    except ValueError as error:  # of an escape such as "\U00110000"
        what = "an escape in double quotes names no character"
        raise SpecError([f"{place(loader.line + 1)}: this is no YAML: {what}"]) from error
    finally:
        loader.dispose()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _UnusableError(Exception):
    """A value that no spec can mean; the text says why."""


@dataclass(slots=True)
class _Reader:
    """Reads nodes into values, and keeps the lines and the problems met on the way."""

    place: PlaceOf
    lines: dict[KeyPath, int] = field(default_factory=dict)
    literal_lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _num_nodes: int = 0

    def value(self, node: yaml.Node, path: KeyPath, *, depth: int) -> Any:
        """The node as a plain value; null, with a problem noted, where it cannot be one."""
        self._check_size(node, path, depth)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
                return self._mapping(node, path, depth)
            if isinstance(node, yaml.SequenceNode) and node.tag == _LIST:
                return self._list(node, path, depth)
            if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
                return self._scalar(node)
            raise _UnusableError(_wrong_tag(node))
        except _UnusableError as error:
            is_open = SECRETS not in path
            self._note(node, path, str(error) if is_open else "holds what is no value (not shown); put text in quotes")
            return None

    def _check_size(self, node: yaml.Node, path: KeyPath, depth: int) -> None:
        self._num_nodes += 1
        if depth > MAX_DEPTH:
            what = f"{_too_deep()} (does an alias stand in its own value?)"
            raise SpecError([self._problem(node, path[:_MAX_KEYS_SHOWN], what)])
        if self._num_nodes > MAX_NODES:
            what = f"the spec holds over {MAX_NODES:,} values (are its aliases nested?)"
            raise SpecError([self._problem(node, path[:_MAX_KEYS_SHOWN], what)])

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for merged in _merged(node):
            if not isinstance(merged, yaml.MappingNode):
                raise _UnusableError(
                    "<< takes in the keys of a mapping, or of a list of mappings, and this is another value"
                )
            values |= self.value(merged, path, depth=depth + 1) or {}
        seen: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            name = self._name(key, path, seen)
            if name is not None:
                here = (*path, name)
                self._keep_place(here, key, value)
                values[name] = self.value(value, here, depth=depth + 1)
        return values

    def _name(self, key: yaml.Node, path: KeyPath, seen: dict[str, int]) -> str | None:
        """A key's text; None, with a problem noted, if it has none or stood there before."""
        if key.tag != _TEXT or not isinstance(key, yaml.ScalarNode):
            what = f"a key must be text; YAML reads {_source(key)} as another type, so put it in quotes"
            self._note(key, path, what)
            return None
        name = str(key.value)
        if name in seen:
            self._note(key, (*path, name), f"the key stands twice, first on line {seen[name]}; keep one")
            return None
        seen[name] = _line(key)
        return name

    def _list(self, node: yaml.SequenceNode, path: KeyPath, depth: int) -> list[Any]:
        values = []
        for index, item in enumerate(node.value):
            here = (*path, index)
            self._keep_place(here, item, item)
            values.append(self.value(item, here, depth=depth + 1))
        return values

    def _keep_place(self, path: KeyPath, named_by: yaml.Node, value: yaml.Node) -> None:
        """Keeps where a value stands; one that was merged in before stands elsewhere, with all that is in it."""
        for stale in [known for known in self.lines if path == known[: len(path)]] if path in self.lines else ():
            del self.lines[stale]
            self.literal_lines.pop(stale, None)
        self.lines[path] = _line(named_by)
        if isinstance(value, yaml.ScalarNode) and value.style == "|":
            self.literal_lines[path] = _line(value) + 1

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_CHARS:
            what = f"was a number of {len(node.value):,} characters; one is written with at most {MAX_NUMBER_CHARS}"
            raise _UnusableError(what)
        try:
            value = _CONSTRUCTOR.yaml_constructors[node.tag](_CONSTRUCTOR, node)
        except (
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
        ) as error:  # PyYAML reads as if the tag were right
            why = f" ({error})" if node.tag == _TIME and isinstance(error, ValueError) else ""
            what = f"was {_source(node)}, which is no {_SCALARS[node.tag]}{why}"
            raise _UnusableError(f"{what}; correct it, or put text in quotes") from error
        if isinstance(value, str) and (found := _SURROGATE.search(value)):
            raise _UnusableError(f"holds U+{ord(found[0]):04X}, half of a character; write the whole one")
        return value

    def _note(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.problems.append(self._problem(node, path, text))

    def _problem(self, node: yaml.Node, path: KeyPath, text: str) -> str:
        return ": ".join(part for part in (self.place(_line(node)), dotted(path), text) if part)


_CONSTRUCTOR = yaml.constructor.SafeConstructor()


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    """What `<<` takes in, those that others win over first."""
    for key, value in node.value:
        if key.tag == _MERGE:
            yield from reversed(value.value) if isinstance(value, yaml.SequenceNode) else (value,)


def _wrong_tag(node: yaml.Node) -> str:
    if node.tag == _TAG + "value":
        return "YAML reads = as a sign of its own; put it in quotes"
    tag = node.tag.replace(_TAG, "!!") if node.tag.startswith(_TAG) else node.tag
    return f"has the tag {tag[:_MAX_SHOWN]!r}, which says nothing here; leave it out, or put text that begins with ! in quotes"


def _source(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "this key"
    shown = repr(node.value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
