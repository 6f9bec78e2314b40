"""Templates over a row's columns: jinja2 in the sandbox, compiled once, rendered thousands of times.

A null or a missing column that is printed is an error of that row; `{{ x | default('', true) }}` opts out. The text is what the
template says, a final newline included. What it may do and cost is `pipelines.sandbox`.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.meta import find_referenced_templates, find_undeclared_variables

from pipelines.errors import RowError, TaskError
from pipelines.kinds import MISSING_VALUE, NULL_VALUE, TEMPLATE_ERROR
from pipelines.sandbox import NullValueError, RowEnvironment

_NULL_ALLOWED = "{{ column | default('', true) }} allows nulls"
_ABSENCE_ALLOWED = "{{ column | default('', true) }} allows missing ones"


class RowTemplate:
    """A template of the job spec. `place` is its key there, for messages.

    `columns` are all names it reads from the row; `required_columns` those it reads without asking first whether they exist
    (`default`, `is defined`). One rendering at a time.

    Raises:
        TaskError: the template is no jinja2, or includes another one.
    """

    def __init__(self, source: str, *, place: str) -> None:
        self.place = place
        self._environment = environment = RowEnvironment()
        try:
            parsed = environment.parse_bare(source)
            _check_alone(parsed, place)
            self.columns = _columns(parsed, environment)
            self.required_columns = self.columns - _optional_names(parsed) - environment.globals.keys()
            self._template = environment.compile_guarded(source)
        except TemplateError as error:
            line = f" (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else ""
            raise TaskError(place, f"the template cannot be used: {error.message}{line}") from error

    def render(self, row: Mapping[str, Any]) -> str:
        """The template's text for one row, given as column name to Python value.

        Raises:
            RowError: a null or missing value was printed, the template failed, or it went over its limits.
        """
        try:
            return self._environment.render_within_budget(self._template, row)
        except NullValueError as error:
            raise RowError(NULL_VALUE, f"{self.place}: {error.message}; {_NULL_ALLOWED}") from error
        except UndefinedError as error:
            raise RowError(MISSING_VALUE, f"{self.place}: {error.message}; {_ABSENCE_ALLOWED}") from error
        except Exception as error:  # the row boundary: a template can raise whatever Python's types raise
            raise RowError(TEMPLATE_ERROR, f"{self.place}: {_describe(error)}") from error


def _describe(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return error.message or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _check_alone(parsed: nodes.Template, place: str) -> None:
    if next(find_referenced_templates(parsed), "") != "":
        raise TaskError(place, "a template cannot include, import or extend another one; write its text here")


def _columns(parsed: nodes.Template, environment: RowEnvironment) -> frozenset[str]:
    """Every name the template looks up, those that jinja2 has a function of the same name for (`range`) included if used as such."""
    kept, environment.globals = environment.globals, {}
    try:
        return frozenset(find_undeclared_variables(parsed))
    finally:
        environment.globals = kept


def _optional_names(parsed: nodes.Template) -> frozenset[str]:
    """Names whose absence the template provides for."""
    names = set()
    for node in parsed.find_all((nodes.Filter, nodes.Test)):
        asks = (
            node.name in ("default", "d") if isinstance(node, nodes.Filter) else node.name in ("defined", "undefined")
        )
        if asks and isinstance(node.node, nodes.Name):
            names.add(node.node.name)
    return frozenset(names)
