"""`{{ parts }}` in a template: where it stands, and the same template with parts in its place.

Only the plain form is taken, so that what stands for it is known without rendering anything. jinja2's own lexer finds it: in a comment, a
raw block or a text it is none.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from jinja2 import nodes

from pipelines.templates.sandbox import RowEnvironment

PARTS: Final = "parts"
JOINER: Final = "\n"

_BLANK: Final = frozenset({"whitespace"})


def prints_parts(template: str) -> bool:
    """Whether a template, which parses, has a plain `{{ parts }}`."""
    return len(_around(template)) > 1


def without_parts(template: str) -> str:
    """A template, which parses, without its plain `{{ parts }}`."""
    return "".join(_around(template))


def names_parts(template: str) -> bool:
    """Whether a template, which parses, has a variable `parts` in any way, be it one of its own; `row["parts"]` is none."""
    parsed = RowEnvironment().parse_bare(template)
    return any(name.name == PARTS for name in parsed.find_all(nodes.Name))


def own_chars(template: str) -> int:
    """The length of what a template, which parses, says whatever the row: all of its text, if it has branches."""
    parsed = RowEnvironment().parse_bare(template)
    return sum(len(text.data) for text in parsed.find_all(nodes.TemplateData))


def with_parts(template: str, parts: Sequence[str]) -> str:
    """A template with `parts`, in this order and a line each, in the place of every plain `{{ parts }}`.

    Each is a scope of its own: what one sets no other sees, and white space that it leaves out is its own.
    """
    around = _around(template)
    return template if len(around) == 1 else JOINER.join(map(_scoped, parts)).join(around)


def _scoped(part: str) -> str:
    text = f'{part[:-1]}{{{{ "{{" }}}}' if part.endswith("{") else part  # a bracket more would begin a tag
    return f"{{% with %}}{text}{{% endwith %}}"


def _around(template: str) -> list[str]:
    """The text between the places where a template prints `parts`, from its beginning to its end."""
    pieces = [""]
    for printed, text in _statements(template):
        if printed == ["variable_begin", PARTS, "variable_end"]:
            pieces.append("")
        else:
            pieces[-1] += text
    return pieces


def _statements(template: str) -> Iterator[tuple[list[str], str]]:
    """What the lexer finds, each printed expression in one: its tokens without white space, names as they are, and its text."""
    tokens: list[str] = []
    text = ""
    for _, kind, value in RowEnvironment().lex(template):
        text += value
        if tokens or kind == "variable_begin":
            tokens += [] if kind in _BLANK else [value if kind == "name" else kind]
            if kind != "variable_end":
                continue
        yield tokens, text
        tokens, text = [], ""
