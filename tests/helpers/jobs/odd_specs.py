"""Specs that somebody got wrong: valid ones, written as YAML, with something in them dropped, doubled, renamed, moved or replaced."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Raw:
    """A value, or a key, as it stands in the YAML text."""

    text: str


Mapping = list[tuple[Any, Any]]
"""Keys and values in order; a key may stand twice."""


def tree(value: Any) -> Any:
    """Plain values with every mapping as a list of pairs in a tuple of one, which tells it from a list."""
    if isinstance(value, dict):
        return ([(name, tree(item)) for name, item in value.items()],)
    if isinstance(value, list):
        return [tree(item) for item in value]
    return value


def yaml_of(value: Any) -> str:
    """The YAML text of a tree, in flow style with a line for each key."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, tuple):
        return "{" + ",\n".join(f"{_key(name)}: {yaml_of(item)}" for name, item in value[0]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(yaml_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: Any) -> str:
    return name.text if isinstance(name, Raw) else json.dumps(name, ensure_ascii=False)


ODD = [
    "null", "~", "", "true", "no", "''", "' '", '"\\0"', '"\\n"', '"\\ud800"', '"\\U00110000"', "'\\'", '"\\x7f\\x1b[31m"', "'é́\u202e'",
    "0", "-1", "1", "2", "1.5", "-0.0", ".inf", "-.inf", ".nan", "1e3", "1.0e+400", "0x1F", "0b1", "1_000", "1:30", "08", "0o17",
    "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 90, "-" + "9" * 90, "9" * 6000,
    "0x" + "f" * 5000, "1." + "3" * 6000, "2026-01-31", "2026-02-30", "2026-13-01", "2026-01-31 10:00:00", "2026-01-31T25:61:00Z",
    "0000-00-00", "9999-12-31", "2026-01-31 10:00:00 +99:99", "[]", "{}", "[null]", "{a: null}", "[[[[1]]]]", "[1, 2", "{a", "}", "]",
    "[" * 300 + "]" * 300, "{a: " * 150 + "1" + "}" * 150, "[" * 3000, "&x [*x]", "&y {a: *y}", "*nowhere", "{<<: 3}", "{<<: [{a: 1}, 2]}",
    "&z {<<: *z}", "{? [a] : b}", "{2: 3}", "{a: 1, a: 2}", "{true: 1}", "{'': 1}", "=", "!!binary aGk=", "!!binary x", "!!int x",
    "!!float x", "!!bool x", "!!timestamp x", "!!null x", "!!str 3", "!!str [x]", "!!set {a}", "!!omap [a: 1]", "!!python/name:os.system x",
    "!foo x", "!<x> y", "% x", "@x", "`x`", "| x", "> x", "? x", "- x", "# x", "a: b", "'x", '"x', "\t", "\x07", "\ufeff", "\x85", "\u2028",
    "'{{ body'", "'{{ a b }}'", "'{% for %}'", "'{{ row }}'", "'{{ row[1] }}'", "'{{ nosuch }}'", "'{{ body | nosuch }}'",
    "'{% include \"x\" %}'",
    "auto", "local", "max", "mean", "nf4", "parquet", "jsonl", "csv", "bfloat16", "'101%'", "'1%'", "'9" + "9" * 400 + "%'", "'١%'",
    "'gs://bucket/x'", "'foo://x'", "'://'", "'file://'", "'file://~nobody/x'", "'~nobody/x'", "'zip://a::b'", "'data:/x'", "'u:p@x'",
    "'http://['", "'/dev/null'", "'/proc/self/mem'", "'..'", "'/'", "'" + "n" * 300 + "'", "'" + "n/" * 3000 + "'", "'**'", "'[a'",
    "'Qwen/Qwen3'",
    "{min: 1, max: null}", "{min: null, max: 2}", "{min: 3, max: 1}", "{method: nf4}", "{method: null}", "{method: int8, block_size: .nan}",
    "[{role: user, content: []}]", "[{role: null, content: x}]", "[{role: user, content: [{type: text, text: null}]}]", "[a, a]", "[a, '']",
]  # fmt: skip
"""YAML values of all kinds that people, templates of specs and other programs write, few of them where they are in place."""

odd_values = (
    st.sampled_from(ODD).map(Raw) | st.text(max_size=6).map(Raw) | st.text(max_size=6) | st.integers() | st.floats()
)
odd_keys = st.sampled_from(["", "a b", "x.y", "models", "model", "path", "service", "engine", "json_schema", "n"]) | st.sampled_from(
    [Raw(text) for text in ("null", "2", "yes", "2026-02-30", "[a]", "<<", "? x", "!!str a", "!foo a", "=")]
)  # fmt: skip


@st.composite
def odd_specs(draw: Callable[..., Any], spec: dict[str, Any]) -> str:
    """The YAML text of a spec with one to three things wrong in it."""
    root = tree(spec)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        if places:
            _spoil(draw, *draw(st.sampled_from(places)))
    return yaml_of(root)


def _places(value: Any) -> Any:
    """Every list of pairs or of items in a tree with every position in it."""
    items = value[0] if isinstance(value, tuple) else value if isinstance(value, list) else []
    for index, item in enumerate(items):
        yield items, index, isinstance(value, tuple)
        yield from _places(item[1] if isinstance(value, tuple) else item)


def _spoil(draw: Callable[..., Any], items: list[Any], index: int, is_mapping: bool) -> None:
    how = draw(st.sampled_from(["replace", "replace", "replace", "drop", "double", "rename", "add", "wrap", "copy"]))
    if how == "drop":
        del items[index]
    elif how == "double":
        items.insert(index, items[index])
    elif how == "rename" and is_mapping:
        items[index] = (draw(odd_keys), items[index][1])
    elif how == "add":
        value = draw(odd_values)
        items.append((draw(odd_keys), value) if is_mapping else value)
    else:
        name, value = items[index] if is_mapping else (None, items[index])
        if how == "wrap":
            value = draw(st.sampled_from([[value], ([("a", value)],), [value, value]]))
        elif how == "copy":
            value = Raw(f"&c {yaml_of(value)}")
            items.append((draw(odd_keys), Raw("*c")) if is_mapping else Raw("*c"))
        else:
            value = draw(odd_values)
        items[index] = (name, value) if is_mapping else value
