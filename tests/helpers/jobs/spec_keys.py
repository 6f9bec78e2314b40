"""The keys of a spec, read from the models that validate it; and those of the reference, read from README's tables."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.spec.engine import Replicas
from models.config.families import family_options
from models.config.option import declared
from models.config.quantization import QuantizationConfig
from pipelines.job import EngineSpec

README = Path(__file__).parents[3] / "README.md"
HEADER = ["key", "value", "default"]
REQUIRED = object()


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key that takes a value: what its line of the reference has to say of the value, and its default. `unset` is what
    stands for a default of None where that is declared."""

    name: str
    says: tuple[str, ...]
    default: Any
    unset: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the reference."""

    value: str
    default: str


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, Key]:
    """Every key that takes a value, by its whole name; `[]` stands for each item of a list."""
    found: dict[str, Key] = {}
    for key in _walk(model, prefix):
        says = (*found[key.name].says, *key.says) if key.name in found else key.says  # of tasks of several kinds
        found[key.name] = replace(key, says=tuple(dict.fromkeys(says)))
    return found


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for attribute, field in model.model_fields.items():
        name = prefix + (field.alias or attribute)
        inner = list(_models(field.annotation))
        if inner:
            dot = "[]." if _is_list(field.annotation) else "."
            if str in _parts(field.annotation):
                yield _key(name, field)
            yield from (key for each in inner for key in _walk(each, name + dot))
        elif QuantizationConfig in _parts(field.annotation):
            yield _key(name, field)
            yield from (
                Key(
                    name=f"{name}.{each.name}",
                    says=tuple(_words(get_type_hints(QuantizationConfig)[each.name])),
                    default=REQUIRED if each.default is MISSING else each.default,
                )
                for each in fields(QuantizationConfig)
            )
        else:
            yield _key(name, field)
        if name.endswith("model.options"):
            yield from (
                Key(name=f"{name}.{option}", says=(each.option.text, *each.words), default=each.default)
                for option, each in family_options().items()
            )


def _key(name: str, field: FieldInfo) -> Key:
    option = declared(EngineSpec).get(name.rpartition("engine.")[2]) if "engine." in name else None
    return Key(
        name=name,
        says=tuple(_says(field)) + ((option.option.text,) if option else ()),
        default=REQUIRED if field.is_required() else field.get_default(call_default_factory=True),
        unset=option.option.unset if option else "",
    )


def _says(field: FieldInfo) -> Iterator[str]:
    """The words it may be, or the range of a number as errors have it."""
    yield from _words(field.annotation)
    if _parts(field.annotation) & {int, float, Replicas}:
        assert field.description
        yield field.description.partition("; default:")[0]


def _words(annotation: Any) -> Iterator[str]:
    literals = (part for part in _parts(annotation) if get_origin(part) is Literal)
    yield from (word for part in literals for word in get_args(part) if isinstance(word, str))


def _parts(annotation: Any) -> set[Any]:
    """A type and those it is made of."""
    inner = set() if get_origin(annotation) is Literal else {arg for arg in get_args(annotation) if _is_type(arg)}
    return {annotation}.union(*map(_parts, inner)) - {NoneType}


def _is_type(argument: Any) -> bool:
    return isinstance(argument, type) or get_origin(argument) is not None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    found = [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
    yield from sorted(found, key=lambda model: model.__name__)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(part) is list for part in _parts(annotation))


def rows_of(page: str) -> dict[str, Row]:
    """The lines of all tables of keys on a page, or a part of it; a key that has two is an error."""
    rows: dict[str, Row] = {}
    is_inside = False
    for line in page.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            is_inside = False
        elif cells == HEADER:
            is_inside = True
        elif is_inside and not set(line) <= set("|-: "):
            key, value, default = cells
            name = key.strip("`")
            assert name not in rows, f"README has {name} twice"
            rows[name] = Row(value=value, default=default)
    return rows


def part_of_readme(heading: str) -> str:
    """The part of README under a heading of the second rank."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def faults(keys: Mapping[str, Key], rows: Mapping[str, Row]) -> list[str]:
    """What the reference lacks, has too much, or says otherwise."""
    found = [f"{name} is no key" for name in rows if name not in keys]
    for name, key in keys.items():
        if name not in rows:
            found.append(f"{name} has no line, such as: | `{name}` | {'; '.join(key.says)} | {_shown(key)} |")
            continue
        found += [f"{name} does not say {said!r}" for said in key.says if said not in rows[name].value]
        if not _is_default(key, rows[name].default):
            found.append(f"{name} has the default {_shown(key)!r}, and its line says {rows[name].default!r}")
        if not rows[name].value:
            found.append(f"{name} does not say what it is")
    return found


def _is_default(key: Key, cell: str) -> bool:
    if key.default is None and not key.unset:
        return bool(cell)  # in words: whatever stands for it
    return cell == _shown(key) or (key.default not in (None, REQUIRED) and cell == f"`{_shown(key)}`")


def _shown(key: Key) -> str:
    if key.default is REQUIRED:
        return ""
    if key.default is None:
        return key.unset
    if isinstance(key.default, Replicas):
        return str(key.default.least)
    number = isinstance(key.default, float) and key.default.is_integer()
    plain = int(key.default) if number else key.default
    return '""' if plain == "" else yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n...\n").strip()
