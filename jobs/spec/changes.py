"""What `--set` may change of a job whose rows are tried again: what leaves the rows alone that
have results, and with `--allow-changed` models and tasks.

Which keys are of the first kind, the models of the spec declare
(`pipelines.task_base.yaml.Strict.changeable`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jobs.errors import shown
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places
from pipelines.task_base.change import Change
from pipelines.task_base.yaml import Strict

OF_AN_ANSWER: Final = ("model", "cascade", "task", "tasks", "parts")
"""Keys that answers depend on, and nothing else does."""


def refused_changes(before: Strict, now: Strict, places: Places, *, allows_changes: bool) -> list[str]:
    """One line for each key that is another, and may not be."""
    found = []
    for path, text in _refused(before, now, ()):
        is_allowable = path[0] in OF_AN_ANSWER
        if is_allowable and allows_changes:
            continue
        remedy = (
            "--allow-changed retries with it all the same, and records for each row which spec it was computed with"
            if is_allowable
            else "no retry changes which rows an output has, and how it holds them"
        )
        found.append(places.problem(path, f"{text}; {remedy}"))
    return found


def _refused(before: Strict, now: Strict, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    for name, field in type(now).model_fields.items():
        old, new = getattr(before, name, None), getattr(now, name)
        if old != new:
            key = field.alias or name
            yield from _refused_key(now.change_of(key), old, new, (*path, key))


def _refused_key(change: Change | None, old: Any, new: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with one key, or within it."""
    inner = list(_pairs(old, new))
    if inner:
        for key, (one, other) in inner:
            if one != other:
                yield from _refused(one, other, (*path, *key))
        return
    reason = "results that are there would mean something else" if change is None else change(old, new)
    if reason is not None:
        yield path, f"was {shown(old)} and is {shown(new)}; {reason}"


def _pairs(old: Any, new: Any) -> Iterator[tuple[KeyPath, tuple[Strict, Strict]]]:
    """The parts of a value that have keys of their own, before and now; none if it has none, or
    others than before."""
    if isinstance(old, Strict) and type(old) is type(new):
        yield (), (old, new)
    elif isinstance(old, Mapping) and isinstance(new, Mapping) and [*old] == [*new]:
        yield from (((key,), pair) for key, pair in _of_models(old, new))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        yield from (((key,), pair) for key, pair in _of_models(dict(enumerate(old)), dict(enumerate(new))))


def _of_models(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[tuple[Any, tuple[Strict, Strict]]]:
    pairs = [(key, (old[key], new[key])) for key in old]
    return pairs if all(isinstance(one, Strict) and type(one) is type(other) for _, (one, other) in pairs) else []
