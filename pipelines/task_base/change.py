"""How a key of a spec may change between a run and a retry of its dead letters, so that results
that are there keep their meaning.

A `Change` is given the value before and the new one, and says why that is another meaning; None:
it is none. Models of a spec declare which of their keys have one
(`pipelines.task_base.yaml.Strict`).
"""

from collections.abc import Callable
from typing import Any

from jinja2 import TemplateError, nodes

from models.templates.sandbox import BudgetedEnvironment

Change = Callable[[Any, Any], str | None]


def to_any(before: Any, now: Any) -> None:
    """For what no result depends on."""
    del before, now


def upwards(before: int, now: int) -> str | None:
    """For a limit that good rows kept to."""
    return None if now >= before else "it may be raised, and not lowered"


def from_unset(before: Any, now: Any) -> str | None:
    """For what makes rows good that are bad without it, and leaves others as they are."""
    del now
    return None if before is None else "it may be set where it was not, and not be changed"


def by_defaults(before: Any, now: Any) -> str | None:
    """For a template: a value may get a default where it had none, as in {{ body | default("") }},
    and nothing else may change."""
    texts = isinstance(before, str) and isinstance(now, str)
    return (
        None
        if texts and _is_alike(_parsed(before), _parsed(now))
        else "a default may be added to a value, and nothing else changed"
    )


def _parsed(template: str) -> nodes.Template | None:
    try:
        return BudgetedEnvironment(filters={}, keep_trailing_newline=True).parse(template)
    except TemplateError:
        return None


def _is_alike(before: Any, now: Any) -> bool:
    """Whether two parts of trees are the same, but for defaults that only the second has."""
    if isinstance(now, nodes.Filter) and now.name in ("default", "d") and before != now:
        is_default = isinstance(before, nodes.Filter) and before.name in ("default", "d")
        return not is_default and _is_alike(before, now.node)
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_is_alike, before, now))
    if not isinstance(before, nodes.Node):
        return bool(before == now)
    fields = before.fields if type(before) is type(now) else None
    return fields is not None and all(_is_alike(getattr(before, name), getattr(now, name)) for name in fields)
