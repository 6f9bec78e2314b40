"""Guards against nulls in a parsed row template: around what it prints, joins, filters and loops over.

They are calls of the environment's own filters, under names no template can write. In the parsed template the expression that turns
out to be null can still be named.
"""

from typing import Final

from jinja2 import Environment, nodes
from jinja2.visitor import NodeTransformer

PRINT: Final = "guard print"
VALUE: Final = "guard value"

_NULL_TOLERANT = frozenset({"default", "d", "tojson"})


def guard(template: nodes.Template, environment: Environment) -> nodes.Template:
    """Puts the guards into a parsed template, in place."""
    _Guards().visit(template)
    template.set_environment(environment)
    return template


class _Guards(NodeTransformer):
    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802  jinja2's name
        node.nodes = [self._guarded(PRINT, child) for child in node.nodes]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        node.nodes = [self._guarded(PRINT, child) for child in node.nodes]
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        label = _label(node.iter)
        self.generic_visit(node)
        node.iter = _call(VALUE, node.iter, label)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        if node.node is None:  # a filter block: its input is text
            return self.generic_visit(node)
        label = _label(node.node)
        self.generic_visit(node)
        if node.name not in _NULL_TOLERANT:
            node.node = _call(VALUE, node.node, label)
        return node

    def _guarded(self, name: str, node: nodes.Expr) -> nodes.Expr:
        if isinstance(node, nodes.TemplateData):
            return node
        label = _label(node)
        return _call(name, self.visit(node), label)


def _call(name: str, node: nodes.Node, label: str) -> nodes.Filter:
    return nodes.Filter(node, name, [nodes.Const(label, lineno=node.lineno)], [], None, None, lineno=node.lineno)


def _label(node: nodes.Node) -> str:
    """An expression in words: the first column that it reads, with its fields."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_label(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_label(node.node)}[{node.arg.value!r}]"
    first = node.find(nodes.Name)
    return first.name if first is not None else "an expression"
