"""Templates over a row's columns: jinja2 in the sandbox, compiled once, rendered thousands of times.

A column is a variable of its name; `row` is the mapping of all columns, for names that jinja2 does
not take for variables. A null or a missing column that is printed is an error of that row; `{{ x |
default('', true) }}` opts out. The text is what the template says, a final newline included. What
it may do and cost is `pipelines.templates.sandbox`.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.meta import find_referenced_templates

from pipelines.errors import RowError, TaskError
from pipelines.formats.row_mapping import ROW, RowMapping
from pipelines.kinds import MISSING_VALUE, NULL_VALUE, TEMPLATE_ERROR
from pipelines.templates.columns import columns_of, name_hint
from pipelines.templates.sandbox import NullValueError, RowEnvironment

_NULL_ALLOWED = "{{ column | default('', true) }} allows nulls"
_ROW_IS_NO_TEXT = (
    'the template prints row, the mapping of all columns: name one, such as row["body"], or write row | tojson; a column that is '
    'named row is row["row"]'
)
_ABSENCE_ALLOWED = "{{ column | default('', true) }} allows missing ones"


class RowTemplate:
    """A template of the job spec. `place` is its key there, for messages.

    `columns` are all that it names; `required_columns` those it reads without asking first whether they exist (`default`,
    `is defined`). `reads_all` is set where it needs all others too, as `row | tojson` does. One rendering at a time.

    Raises:
        TaskError: the template is not jinja2, or includes another one.
    """

    def __init__(self, source: str, *, place: str) -> None:
        self.place = place
        self._environment = environment = RowEnvironment()
        try:
            parsed = environment.parse_bare(source)
            _check_alone(parsed, place)
            reads = columns_of(parsed, environment)
            self._template = environment.compile_guarded(source)
        except TemplateSyntaxError as error:
            hint = name_hint(source, error, environment) if type(error) is TemplateSyntaxError else ""
            text = f"{error.message} (line {error.lineno}){hint}"
            raise TaskError(place, f"the template cannot be used: {text}") from error
        except TemplateError as error:
            raise TaskError(place, f"the template cannot be used: {error.message}") from error
        if reads.prints_row:
            raise TaskError(place, _ROW_IS_NO_TEXT)
        self.columns = reads.named
        self.required_columns = reads.named - reads.optional
        self.reads_all = reads.is_all
        self._uses_row = reads.uses_row

    def render(self, row: Mapping[str, Any]) -> str:
        """The template's text for one row, given as column name to Python value.

        Raises:
            RowError: a null or missing value was printed, the template failed, or it went over its limits.
        """
        try:
            return self._environment.render_within_budget(self._template, self._variables(row))
        except NullValueError as error:
            raise RowError(NULL_VALUE, f"{self.place}: {error.message}; {_NULL_ALLOWED}") from error
        except UndefinedError as error:
            raise RowError(MISSING_VALUE, f"{self.place}: {error.message}; {_ABSENCE_ALLOWED}") from error
        except MemoryError:  # of the process that this runs in, not of the row
            raise
        except Exception as error:  # the row boundary: a template can raise whatever Python's types raise
            raise RowError(TEMPLATE_ERROR, f"{self.place}: {_describe(error)}") from error

    def _variables(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, ROW: RowMapping.of(row)} if self._uses_row else row


def _describe(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return error.message or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _check_alone(parsed: nodes.Template, place: str) -> None:
    if next(find_referenced_templates(parsed), "") != "":
        raise TaskError(place, "a template cannot include, import or extend another one; write its text here")
