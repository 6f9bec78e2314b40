"""From a template's source to code, without doing any of its work and within bounds.

jinja2 computes what is constant while it compiles, so that `{{ 1|round(20000000, 'ceil') }}` would run for minutes before it is ever
rendered. Here the code of constants is written as it is of anything else. Size and nesting have limits, which published templates
stay far below; compiling a template within them takes a second at most.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from jinja2 import TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

MAX_SOURCE_CHARS: Final = 1 << 22
"""Characters of a template, most of which may be text that is printed as it is."""

MAX_TOKENS: Final = 20_000
"""Words, numbers, texts and signs within its tags."""

MAX_DEPTH: Final = 150
"""Depth of blocks and expressions in one another; a sum of n terms counts as n deep."""

_MAX_CODE_CHARS: Final = 1 << 20  # beyond its text; a scoped block repeats the names of all variables
_SPLIT_IT: Final = "shorten it, or compute some of it beforehand"
_TOO_DEEP: Final = (
    "the template is nested too deep; at most 20 loops, 50 brackets, or "
    f"{MAX_DEPTH} blocks and terms may stand in one another"
)


class BoundedTokens(Extension):
    """Refuses a template of too many tokens before any of it is parsed."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for number, token in enumerate(stream):
            if number == MAX_TOKENS:
                raise TemplateSyntaxError(
                    f"the template has more than {MAX_TOKENS:,} words and signs in its tags; {_SPLIT_IT}", token.lineno
                )
            yield token


class UnfoldingGenerator(CodeGenerator):
    """Writes a template's code, and computes nothing of what the template says."""

    def write(self, x: str) -> None:
        super().write(x)
        if self.stream.tell() > _MAX_CODE_CHARS + 2 * self._num_text_chars:
            raise TemplateSyntaxError(f"the template makes too much code; {_SPLIT_IT}", self.code_lineno)

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802  jinja2's names
        self._num_text_chars = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        super().visit_Template(node, frame)

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Frame) -> None:  # noqa: N802
        for keyword in node.options:
            self.writeline(f"context.eval_ctx.{keyword.key} = ")
            self.visit(keyword.value, frame)
        frame.eval_ctx.volatile = True  # known when it is rendered

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> str:
        is_text = isinstance(node, nodes.TemplateData) or (
            isinstance(node, nodes.Const) and isinstance(node.value, str)
        )
        if not is_text:
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


def check_length(source: str) -> None:
    """Raises TemplateSyntaxError if a template is longer than any may be."""
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateSyntaxError(
            f"the template has {len(source):,} characters; at most {MAX_SOURCE_CHARS:,} are allowed", 1
        )


def check_depth(tree: nodes.Template) -> None:
    """Raises TemplateSyntaxError if more stands in one another than a template may have."""
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise TemplateSyntaxError(_TOO_DEEP, level[0].lineno)


@contextmanager
def syntax_errors() -> Iterator[None]:
    """What Python says of a template that it cannot take comes out as jinja2's own error."""
    try:
        yield
    except RecursionError as error:
        raise TemplateSyntaxError(_TOO_DEEP, 1) from error
    except SyntaxError as error:  # loops in loops in loops, a keyword that stands there twice
        raise TemplateSyntaxError(f"the template cannot be compiled: {error.msg}", 1) from error
    except (OverflowError, ValueError) as error:
        raise TemplateSyntaxError(f"a number in the template cannot be used: {error}", 1) from error
