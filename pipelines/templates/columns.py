"""Which columns a parsed template reads: by their names alone, or through `row`, the mapping of all columns.

`{{ body }}`, `{{ row["Ticket Text"] }}` and `{{ row.body }}` name a column; `row[name]`, `row.items()` and `row | tojson` need all of
them. jinja2's own compiler says which names are the row's and which are the template's (`{% for row in ... %}`).
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.compiler import Frame
from jinja2.visitor import NodeVisitor

from models.templates.source import UnfoldingGenerator, syntax_errors
from pipelines.formats.row_mapping import ROW, in_row

_NO_OWN_NAME = re.compile(r"[{}|()\[\]\"'~]")
_MAX_NAME_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateColumns:
    """The columns a template names, those among them that it does without, whether it needs all others too, and whether it says `row`
    at all, or prints it as it is."""

    named: frozenset[str]
    optional: frozenset[str]
    is_all: bool
    uses_row: bool
    prints_row: bool


def columns_of(parsed: nodes.Template, environment: Environment) -> TemplateColumns:
    """The columns of a template. Those that jinja2 has a function of the same name for (`range`) can be left out, and those that the
    template may have set itself where it reads them (`{% if x %}{% set y = 1 %}{% endif %}{{ y }}`)."""
    reads, before_set = _Reads(environment), _ReadBeforeSet()
    with syntax_errors():
        reads.visit(parsed)
        before_set.visit(parsed)
    by_name = reads.undeclared_identifiers - {ROW}
    own = (environment.globals.keys() | (by_name - before_set.names)) & by_name
    return TemplateColumns(
        named=frozenset(by_name | reads.named),
        optional=frozenset(reads.optional | (own - reads.named)),
        is_all=reads.is_all,
        uses_row=ROW in reads.undeclared_identifiers,
        prints_row=reads.prints_row,
    )


class _Reads(UnfoldingGenerator):
    """Notes what stands in the template while jinja2 compiles it; the compiled code is not
    used."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment, None, None, optimized=False)
        self.undeclared_identifiers: set[str] = set()
        self.named: set[str] = set()
        self.optional: set[str] = set()
        self.is_all = self.prints_row = False

    def write(self, x: str) -> None:
        """Writes nothing."""

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        loads = frame.symbols.loads.values()
        self.undeclared_identifiers.update(name for action, name in loads if action == "resolve" and name is not None)

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802  jinja2's names
        self.prints_row |= any(self._is_row(child, frame) for child in node.nodes)
        super().visit_Output(node, frame)

    def visit_Name(self, node: nodes.Name, frame: Frame) -> None:  # noqa: N802
        self.is_all |= self._is_row(node, frame)
        super().visit_Name(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if not self._is_named(node, frame):
            super().visit_Getitem(node, frame)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        if not self._is_named(node, frame):
            super().visit_Getattr(node, frame)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        called = node.node
        is_get = isinstance(called, nodes.Getattr) and called.attr == "get" and self._is_row(called.node, frame)
        name = _text(node.args[0]) if is_get and node.args else None
        if name is None:
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self._note_optional(name)
        for rest in (*node.args[1:], *node.kwargs):
            self.visit(rest, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        first = node.ops[0]
        name = _text(node.expr)
        if len(node.ops) == 1 and first.op in ("in", "notin") and name is not None and self._is_row(first.expr, frame):
            self._note_optional(name)
        else:
            super().visit_Compare(node, frame)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:  # noqa: N802
        if node.name in ("default", "d"):
            self._note_asked(node.node, frame)
        super().visit_Filter(node, frame)

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:  # noqa: N802
        if node.name in ("defined", "undefined"):
            self._note_asked(node.node, frame)
        super().visit_Test(node, frame)

    def _is_row(self, node: nodes.Node, frame: Frame) -> bool:
        """Whether an expression is `row`, and no variable of the template's own."""
        if not (isinstance(node, nodes.Name) and node.name == ROW and node.ctx == "load"):
            return False
        load = frame.symbols.find_load(frame.symbols.ref(ROW))
        while load is not None and load[0] == "alias":
            load = frame.symbols.find_load(load[1])
        return load is not None and load[0] == "resolve"

    def _is_named(self, node: nodes.Getitem | nodes.Getattr, frame: Frame) -> bool:
        """Notes the column that `row["x"]` or `row.x` is; False for everything else."""
        name = self._named_by(node, frame)
        if name is not None:
            self.named.add(name)
        return name is not None

    def _named_by(self, node: nodes.Node | None, frame: Frame) -> str | None:
        if not isinstance(node, nodes.Getitem | nodes.Getattr) or not self._is_row(node.node, frame):
            return None
        if isinstance(node, nodes.Getitem):
            return _text(node.arg)
        return None if hasattr(dict, node.attr) else node.attr  # `row.items` is a method, unless there is such a column

    def _note_asked(self, node: nodes.Node | None, frame: Frame) -> None:
        name = node.name if isinstance(node, nodes.Name) else self._named_by(node, frame)
        if name is not None:
            self.optional.add(name)

    def _note_optional(self, name: str) -> None:
        self.named.add(name)
        self.optional.add(name)


class _ReadBeforeSet(NodeVisitor):
    """The `names` that a template reads where no `set`, loop or macro of its own can have given them a value."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._set: frozenset[str] = frozenset()

    def visit_Name(self, node: nodes.Name) -> None:  # noqa: N802
        if node.ctx == "load" and node.name not in self._set:
            self.names.add(node.name)

    def visit_Assign(self, node: nodes.Assign) -> None:  # noqa: N802
        self.visit(node.node)
        self._add(node.target)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> None:  # noqa: N802
        self._visit_scope(*([] if node.filter is None else [node.filter]), *node.body)
        self._add(node.target)

    def visit_If(self, node: nodes.If) -> None:  # noqa: N802
        self.visit(node.test)
        before, after = self._set, self._set
        for branch in (node.body, node.elif_, node.else_):
            self._set = before
            self._visit_all(branch)
            after |= self._set
        self._set = after

    def visit_For(self, node: nodes.For) -> None:  # noqa: N802
        self.visit(node.iter)
        self._visit_scope(*node.else_)
        tests = [] if node.test is None else [node.test]
        self._visit_scope(*tests, *node.body, own=[node.target])

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> None:  # noqa: N802
        self._visit_all(node.defaults)
        if isinstance(node, nodes.CallBlock):
            self.visit(node.call)
        else:
            self._set |= {node.name}
        self._visit_scope(*node.body, own=node.args)

    visit_CallBlock = visit_Macro  # noqa: N815

    def visit_With(self, node: nodes.With) -> None:  # noqa: N802
        self._visit_all(node.values)
        self._visit_scope(*node.body, own=node.targets)

    def _visit_all(self, children: Iterable[nodes.Node]) -> None:
        for child in children:
            self.visit(child)

    def _visit_scope(self, *children: nodes.Node, own: Iterable[nodes.Node] = ()) -> None:
        """Visits what has names of its own, which are gone afterwards."""
        before = self._set
        for target in own:
            self._add(target)
        self._visit_all(children)
        self._set = before

    def _add(self, target: nodes.Node) -> None:
        self._set |= {name.name for name in (target, *target.find_all(nodes.Name)) if isinstance(name, nodes.Name)}


def _text(node: nodes.Node) -> str | None:
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else None


def name_hint(source: str, error: TemplateSyntaxError, environment: Environment) -> str:
    """How a column is named whose name is why the template does not parse, as far as that can be seen."""
    lines = source.splitlines()
    line = lines[error.lineno - 1] if 0 < error.lineno <= len(lines) else ""
    for name in _printed(line):
        if 0 < len(name) <= _MAX_NAME_CHARS and not _NO_OWN_NAME.search(name) and not _parses(name, environment):
            return f"; a column named {json.dumps(name, ensure_ascii=False)} is written {{{{ {in_row(name)} }}}}"
    return f"; a column whose name is no plain word is written like {{{{ {in_row('Ticket Text')} }}}}"


def _printed(line: str) -> Iterator[str]:
    """What stands between {{ and }}, each as it is found from the left."""
    end = 0
    while (start := line.find("{{", end)) >= 0 and (end := line.find("}}", start + 2)) >= 0:
        yield line[start + 2 : end].lstrip("-+").rstrip("-+").strip()
        end += 2


def _parses(expression: str, environment: Environment) -> bool:
    try:
        environment.parse(f"{{{{ {expression} }}}}")
    except TemplateSyntaxError:
        return False
    return True
