"""Pydantic's errors in Millrace's words: place, key, what was given, what is allowed, the nearest key that exists.

Knows pydantic and the places of a document, not the meaning of any key.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import shown
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import YamlDocument
from jobs.spec.document.yaml_reading import SECRETS


def problems_of(error: ValidationError, model: type[BaseModel], document: YamlDocument) -> list[str]:
    """One line a problem, in the order of the file; `model` is what the document was validated against."""
    places = document.places
    found = _of_the_nearest([_resolve(detail, model) for detail in error.errors()])
    found.sort(key=lambda problem: places.line_of(problem.path))
    return [places.problem(problem.path, _text(problem)) for problem in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """A pydantic error, the keys it is about, the model those keys live in, and what may stand there. `choice` is the key whose value
    may be of several types, of which this is the problem with one; None: there is no such key."""

    detail: ErrorDetails
    path: KeyPath
    owner: type[BaseModel]
    allowed: str
    choice: KeyPath | None = None


def _of_the_nearest(problems: list[_Problem]) -> list[_Problem]:
    """Of a value that fits none of several types, the problems with the type that it comes nearest to: those deepest within it."""
    deepest: dict[KeyPath, int] = {}
    for problem in problems:
        if problem.choice is not None:
            deepest[problem.choice] = max(deepest.get(problem.choice, 0), len(problem.path))
    seen: set[KeyPath] = set()
    kept = []
    for problem in problems:
        if problem.choice is None or (len(problem.path) == deepest[problem.choice] and problem.path not in seen):
            kept.append(problem)
        if problem.choice is not None:
            seen.add(problem.path)
    return kept


def _resolve(detail: ErrorDetails, model: type[BaseModel]) -> _Problem:
    """Follows pydantic's location from the root, leaving out the tag it adds for the member of a union."""
    path: list[str | int] = []
    owner, members, allowed = model, [model], ""
    choice: KeyPath | None = None
    is_type_next = is_name_next = False
    for part in detail["loc"]:
        if is_type_next:
            choice, is_type_next = tuple(path), False
        elif isinstance(part, int):
            path.append(part)
        elif is_name_next:
            path.append(part)
            is_name_next = False
        elif len(members) > 1:
            members = [member for member in members if part in _tags(member)]
        else:
            path.append(part)
            owner = members[0] if members else owner
            fields = owner.model_fields.items() if members else ()  # within a mapping keys are no fields
            field = next((each for name, each in fields if part in (name, each.alias)), None)
            allowed = (field.description if field else None) or allowed
            members = _models_in(field.annotation) if field else []
            is_type_next = field is not None and len(members) <= 1 and _num_types(field.annotation) > 1
            is_name_next = field is not None and bool(members) and _is_mapping(field.annotation)
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("kind")
        *most, last = [tag for member in members for tag in _tags(member)]
        allowed = f"{', '.join(most)} or {last}"
    if detail["type"] == "at_key":
        path.append(detail["ctx"]["key"])
    return _Problem(detail=detail, path=tuple(path), owner=owner, allowed=allowed, choice=choice)


def _text(problem: _Problem) -> str:
    detail = problem.detail
    match detail["type"]:
        case "at_key":
            text = detail["ctx"]["text"]
        case "value_error":
            text = detail["ctx"]["error"]
        case "missing" | "union_tag_not_found":
            text = f"this key is required and missing; it must be {problem.allowed}"
        case "union_tag_invalid":
            text = f"was {shown(detail['ctx']['tag'])}; it must be {problem.allowed}"
        case "extra_forbidden":
            text = _unknown_key(str(problem.path[-1]), problem.owner)
        case _:
            text = f"was {_given(problem)}; it must be {problem.allowed}{_hint(detail, problem.allowed)}"
    return str(text)


def _given(problem: _Problem) -> str:
    return "a value that is not shown" if SECRETS in problem.path else shown(problem.detail["input"])


def _unknown_key(key: str, owner: type[BaseModel]) -> str:
    later: Mapping[str, str] = getattr(owner, "later", {})
    if key in later:
        return later[key]
    known = [field.alias or name for name, field in owner.model_fields.items()]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    question = f" did you mean {close[0]}?" if close else ""
    return f"unknown key;{question} The keys here are {', '.join(known)}"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _num_types(annotation: Any) -> int:
    """How many types a value may be of, beside null."""
    return len([part for part in get_args(annotation) if part is not NoneType]) if _is_union(annotation) else 1


def _is_mapping(annotation: Any) -> bool:
    """Whether a value's own keys are names of the writer's, and its values of the members."""
    inner = [part for part in get_args(annotation) if part is not NoneType] if _is_union(annotation) else [annotation]
    return [get_origin(part) for part in inner] == [dict]


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _tags(member: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(member.model_fields["kind"].annotation)


def _hint(detail: ErrorDetails, allowed: str) -> str:
    """The bound that the key's description leaves out, or what YAML reads as another type than people mean."""
    error_type, given = detail["type"], detail["input"]
    if error_type == "less_than_equal" and " to " not in allowed and "at most" not in allowed:
        return f", at most {detail['ctx']['le']:,}"
    if error_type == "finite_number":
        return ", and finite"
    if error_type == "string_type":
        if isinstance(given, bool):
            return " (YAML reads yes, no, on and off as true and false: put the word in quotes)"
        if isinstance(given, int | float | date):
            return " (put it in quotes to make it text)"
    if error_type in ("float_type", "int_type") and isinstance(given, str):
        return " (a number stands without quotes, and YAML reads 1e-3 as text: write 1.0e-3 or 0.001)"
    return ""
