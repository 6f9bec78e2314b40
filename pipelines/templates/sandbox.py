"""Where row templates run: the engine's sandbox and budget, with undefined values strict and nulls refused.

A null is refused wherever it would turn into the word "None": printed, joined with `~` or `join`, formatted, given to an operator or
to a filter other than `default` and `tojson`. So is what has no text of its own: binary values, generators, functions.
"""

import datetime as dt
import decimal
import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import StrictUndefined, Undefined, UndefinedError, nodes
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import do_format, do_join
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.utils import missing, pass_eval_context

from models.templates.sandbox import BudgetedEnvironment
from pipelines.formats.row_mapping import RowMapping
from pipelines.templates import guards

_PRINTABLE = (str, int, float, decimal.Decimal, dt.date, dt.time, dt.timedelta, uuid.UUID)


class NullValueError(UndefinedError):
    """A null stands where a value is needed."""


class RowUndefined(StrictUndefined):
    """A missing column or field; a field of a null is the null's fault."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        if obj is None:
            hint, exc = f"{name!r} is read from a null", NullValueError
        elif hint is None and (obj is missing or isinstance(obj, RowMapping)):
            hint = f"{name!r} is no column of this row"
        super().__init__(hint, obj, name, exc)


class RowEnvironment(BudgetedEnvironment):
    """The environment of row templates; they are compiled by `compile_guarded` and rendered by `render_within_budget`."""

    def __init__(self) -> None:
        filters: dict[str, Callable[..., Any]] = {
            guards.PRINT: _print,
            guards.VALUE: _value,
            "join": _join,
            "format": _format,
            "tojson": _to_json,
        }
        super().__init__(filters=filters, undefined=RowUndefined, keep_trailing_newline=True)

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> nodes.Template:
        return guards.guard(super().parse(source, name, filename), self)

    def parse_bare(self, source: str) -> nodes.Template:
        """The template as it is written."""
        return super().parse(source)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An object's own keys come before Python's methods: `order.items` is what the order has under `items`."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if left is None or right is None:
            raise NullValueError(f"a null is given to the operator {operator}")
        if operator == "%" and isinstance(left, str):
            _check_printable(right, "format")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_items([*args, *kwargs.values()], "format")
            return formatted(*args, **kwargs)

        return checked


def _print(value: Any, label: str) -> Any:
    if type(value) is not str:
        _check_printable(value, label)
    return value


def _value(value: Any, label: str) -> Any:
    if value is None:
        raise NullValueError(f"{label!r} is null")
    return value


@pass_eval_context
def _join(context: EvalContext, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    if attribute is None and isinstance(value, list):
        _check_items(value, "join")
    joined: str = do_join(context, value, d, attribute)
    return joined


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    _check_items([*args, *kwargs.values()], "format")
    formatted: str = do_format(value, *args, **kwargs)
    return formatted


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON for a reader of text: not escaped for HTML, as jinja2's own is; dates and decimals as strings."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_json_default)


def _json_default(value: Any) -> str:
    if isinstance(value, _PRINTABLE):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON")


def _check_printable(value: Any, label: str) -> None:
    """Raises unless a value's text says what it holds."""
    if isinstance(value, _PRINTABLE):
        return
    if value is None:
        raise NullValueError(f"{label!r} is null")
    if isinstance(value, Undefined):
        str(value)  # raises what it is, except for an inline `if` without `else`, which prints nothing
    elif isinstance(value, list | tuple):
        _check_items(value, label)
    elif isinstance(value, dict):
        _check_items([*value.keys(), *value.values()], label)
    elif isinstance(value, bytes):
        raise TemplateRuntimeError(f"{label!r} is binary; if it holds text, print {label}.decode('utf-8')")
    else:
        what = f"of type {type(value).__name__}, which has no text of its own"
        raise TemplateRuntimeError(f"{label!r} is {what}; add | list or | join")


def _check_items(items: Sequence[Any], label: str) -> None:
    for item in items:
        if item is None:
            raise NullValueError(f"{label!r} holds a null")
        _check_printable(item, label)
