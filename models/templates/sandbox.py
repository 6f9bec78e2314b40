"""Where templates run: jinja2's immutable sandbox with nothing random in it, and a budget.

The sandbox keeps templates from Python's internals, but not from `{{ 'x' * 10**9 }}` or a loop in a loop. So every
loop turn, call, filter, operation and comparison is charged to a budget by the amount of text it takes and makes,
and what multiplies text is measured before it runs (`models.templates.budget`).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from types import CodeType, GeneratorType
from typing import Any, Final

from jinja2 import Template, Undefined, nodes
from jinja2.ext import Extension
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from models.templates.budget import (
    Budget,
    OverLimitError,
    check_brace_format,
    check_growth,
    check_percent_format,
    check_power,
    check_product,
)
from models.templates.source import BoundedTokens, UnfoldingGenerator, check_depth, check_length, syntax_errors

MAX_OUTPUT_CHARS = 1 << 24
"""Characters of one rendered text."""

_STEPS_PER_CALL = 4
_GROWING_ATTRIBUTES = frozenset({"translate", "maketrans", "format_map", "to_bytes", "from_bytes"})
# Filters of the environment's own, under names that no template can write.
_EACH: Final = "sandbox each"
_CONCAT: Final = "sandbox concat"
_WEIGH: Final = "sandbox weigh"


class BudgetedEnvironment(ImmutableSandboxedEnvironment):
    """A sandboxed environment in which all that a template does is charged.

    One rendering at a time: the budget is the environment's. Filters are given at construction, since all are wrapped.
    Other arguments are those of `jinja2.Environment`.
    """

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
    code_generator_class = UnfoldingGenerator

    def __init__(
        self,
        *,
        filters: Mapping[str, Callable[..., Any]],
        extensions: Sequence[type[Extension]] = (),
        **settings: Any,
    ) -> None:
        super().__init__(optimized=False, extensions=[BoundedTokens, *extensions], **settings)
        self._budget = Budget()
        del self.filters["random"], self.globals["lipsum"]
        every = {**self.filters, **filters}
        self.filters = {name: self._charged(name, function) for name, function in every.items()}
        self.filters |= {_EACH: self._turns, _CONCAT: self._concat, _WEIGH: self._weigh}

    def compile_guarded(self, source: str) -> Template:
        """A template of which every loop, `~` and comparison is charged too.

        Raises:
            jinja2.TemplateSyntaxError: it is not a template, or too large or nested too deep to be one.
        """
        with syntax_errors():
            tree = _Guards().visit(self.parse(source))
            tree.set_environment(self)
            code = self.compile(tree)
        return self.template_class.from_code(self, code, self.make_globals(None))

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> nodes.Template:
        """The tree of a template.

        Raises:
            jinja2.TemplateSyntaxError: it is not a template, or too large or nested too deep to be one.
        """
        check_length(source)
        with syntax_errors():
            tree = super().parse(source, name, filename)
        check_depth(tree)
        return tree

    def _compile(self, source: str, filename: str) -> CodeType:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # such as for `1[0]`
            return super()._compile(source, filename)

    def render_within_budget(self, template: Template, variables: Mapping[str, Any]) -> str:
        """Renders with a fresh budget.

        Raises:
            OverLimitError: it took too many steps or made too much text.
            Exception: whatever the template raised.
        """
        self._budget = Budget()
        chunks: list[str] = []
        num_chars = 0
        for chunk in template.generate(variables):
            num_chars += len(chunk)
            if num_chars > MAX_OUTPUT_CHARS:
                raise OverLimitError(f"the rendered text is longer than {MAX_OUTPUT_CHARS:,} characters")
            chunks.append(chunk)
        return "".join(chunks)

    # What compiled templates call.

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._budget.charge(_STEPS_PER_CALL)
        receiver = getattr(obj, "__self__", None)
        if isinstance(receiver, str | bytes):
            self._budget.charge_text(len(receiver))
            if obj.__name__ == "join" and args:
                args = (self._listed(args[0]), *args[1:])
            check_growth(self._budget, obj.__name__, receiver, (*args, *kwargs.values()))
        return self._taken(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            check_product(self._budget, left, right)
        elif operator == "**":
            check_power(left, right)
        elif operator == "%":
            check_percent_format(left)
        return self._taken(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr in _GROWING_ATTRIBUTES and isinstance(obj, str | bytes | int):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        pattern: str = value.__self__

        def checked(*args: Any, **kwargs: Any) -> str:
            check_brace_format(pattern)
            return formatted(*args, **kwargs)

        return checked

    # What the guards call.

    def _turns(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._budget.charge(1)
            yield value

    def _concat(self, values: tuple[Any, ...]) -> str:
        self._budget.weigh(values)
        return "".join(map(str, values))

    def _weigh(self, value: Any) -> Any:
        self._budget.weigh(value)
        return value

    # Filters and calls: measured before, charged after.

    def _charged(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that charges what it is given and what it makes.

        What jinja2 passes first, of its own, goes through.
        """
        num_passed = int(hasattr(function, "jinja_pass_arg"))

        @wraps(function)
        def charged(*args: Any, **kwargs: Any) -> Any:
            passed, value, rest = args[:num_passed], args[num_passed], args[num_passed + 1 :]
            given = (*rest, *kwargs.values())
            self._budget.weigh(value)
            self._budget.weigh(given)
            if name == "join" and not isinstance(value, Undefined):
                value = self._listed(value)
            elif name == "format":
                check_percent_format(value)
            check_growth(self._budget, name, value, given)
            return self._taken(function(*passed, value, *rest, **kwargs))

        return charged

    def _listed(self, values: Iterable[Any]) -> list[Any]:
        """What `join` joins, as a list that can be measured."""
        items = list(self._turns(values))
        self._budget.weigh(items)
        return items

    def _taken(self, result: Any) -> Any:
        """Charges a result; a lazy one is charged as it is taken."""
        if isinstance(result, str | bytes):
            self._budget.charge_text(len(result))
        elif isinstance(result, list | tuple | dict):
            self._budget.charge(1 + len(result))
        elif isinstance(result, GeneratorType):
            return self._turns(result)
        return result


class _Guards(NodeTransformer):
    """Routes loops, `~` and comparisons, which compiled templates do by themselves, through the environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  jinja2's name
        self.generic_visit(node)
        node.iter = _call(_EACH, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call(_CONCAT, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _call(_WEIGH, node.expr)
        for operand in node.ops:
            operand.expr = _call(_WEIGH, operand.expr)
        return node


def _call(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
