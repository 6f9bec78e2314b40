"""A condition on dead letters, as `--where` takes one: an expression of jinja2, as in templates,
over the values of a letter.

    condition = Condition('kind == "too_long" and row < 1000')
    condition.holds(letter.values)

It runs where templates run, and may cost as much as one.
"""

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import ChainableUndefined, TemplateError, nodes
from jinja2.meta import find_undeclared_variables

from models.templates.sandbox import BudgetedEnvironment
from pipelines.errors import SelectionError

NAMES: Final = ("unit", "path", "row", "kind", "message", "attempts", "input", "tasks", "answer")
"""What a letter has. The last two are null where it has none."""
_EXAMPLE: Final = 'write one such as kind == "too_long" and row < 1000'


class Condition:
    """One condition. Picklable: what it was written as travels. A field that a row has not is
    equal to nothing.

    Raises:
        SelectionError: it is no expression over what a letter has.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._environment = environment = BudgetedEnvironment(filters={}, undefined=ChainableUndefined)
        source = f"{{% if ({text}) %}}1{{% endif %}}"
        try:
            tree = environment.parse(source)
            self._template = environment.compile_guarded(source)
        except TemplateError as error:
            raise SelectionError(f"{text!r} is no expression: {error.message}; {_EXAMPLE}") from error
        if not _is_one_test(tree):
            raise SelectionError(f"{text!r} is no expression; {_EXAMPLE}")
        names = find_undeclared_variables(tree)
        unknown = sorted(names - {*NAMES, *environment.globals})
        if unknown:
            raise SelectionError(f"{text!r} names {', '.join(unknown)}; a dead letter has {', '.join(NAMES)}")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of a letter.

        Raises:
            SelectionError: it cannot be told of this one.
        """
        try:
            return bool(
                self._environment.render_within_budget(self._template, {name: values.get(name) for name in NAMES})
            )
        except MemoryError:
            raise
        except Exception as error:  # an expression can raise whatever Python's types raise
            where = f"row {values.get('row')} of {values.get('path')}"
            raise SelectionError(f"{self._text!r} cannot be told of {where}: {error}") from error

    def __reduce__(self) -> "tuple[type[Condition], tuple[str]]":
        return Condition, (self._text,)


def _is_one_test(tree: nodes.Template) -> bool:
    """Whether what stands in the place of a test is one value, and nothing around it."""
    return len(tree.body) == 1 and isinstance(tree.body[0], nodes.If) and not isinstance(tree.body[0].test, nodes.Tuple)
