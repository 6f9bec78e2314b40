"""Templates drawn from jinja2's whole grammar, with a taste for what grows: `templates()` is a hypothesis strategy.

Every template parses; most fail when they are rendered, many after much work. Names of variables that are given by nobody are drawn
too. Sizes go to 10**7 and doublings to 30 levels, so that some of them can only be ended from outside.
"""

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

NAMES: Final = ("body", "id", "messages", "row", "ns", "a", "b", "i", "loop", "nobody")
COUNTS: Final = (0, 1, 2, 3, 7, 26, 400, 20_000, 3_000_000, 10_000_000)
TEXTS: Final = ("", "x", "ab c\\n", "%s", "%9999d", "{0:9999}", "{}", "http://a.co ", "<b>&", "é😀", "%1400d", "\\t")
FILTERS: Final = (
    "abs", "attr('x')", "batch({n})", "capitalize", "center({n})", "count", "d('x')", "default({e}, true)", "dictsort", "e",
    "escape", "filesizeformat", "first", "float", "forceescape", "format({e})", "groupby('x')", "groupby(0)|list", "indent({n})",
    "indent({n}, true, true)", "int", "int(0, 16)", "int({n})", "items|list", "join", "join({e})", "join({e}, 0)", "last", "length",
    "list", "lower", "map('upper')|list", "map(attribute='x')|list", "map('int')|sum", "max", "min", "pprint", "reject('none')|list",
    "rejectattr('x')|list", "replace({t}, {e})", "reverse|list", "round({n}, 'ceil')", "round({n})", "safe", "select('eq', {e})|list",
    "selectattr('x', 'defined')|list", "slice({n})|list", "sort", "sort(reverse=true)", "string", "striptags",
    "sum(start={e})", "title", "tojson", "tojson(indent={n})", "tojson(indent={t})", "tojson(separators=({t}, {t}))",
    "trim", "truncate({n})", "unique|list", "upper", "urlencode", "urlize", "urlize({n}, target={e})", "wordcount", "wordwrap({n})",
    "wordwrap({n}, wrapstring={e})", "xmlattr",
)  # fmt: skip
TESTS: Final = (
    "boolean", "callable", "defined", "divisibleby({n})", "eq {e}", "equalto({e})", "escaped", "even", "false", "filter", "float",
    "ge {e}", "gt({e})", "in {e}", "integer", "iterable", "le {e}", "lower", "lt {e}", "mapping", "ne {e}", "none", "number", "odd",
    "sameas {e}", "sequence", "string", "test", "true", "undefined", "upper",
)  # fmt: skip
METHODS: Final = (
    # str
    "capitalize()", "casefold()", "center({n})", "count({t})", "encode()", "endswith({t})", "expandtabs({n})", "find({t})",
    "format({e})", "format(*[{e}]*3)", "format_map({e})", "index({t})", "isdigit()", "join({e})", "ljust({n}, 'x')", "lower()",
    "lstrip()", "partition({t})", "removeprefix({t})", "replace({t}, {e})", "replace({t}, {e}, {n})", "rfind({t})", "rjust({n})",
    "rsplit({t})", "rstrip({t})", "split()", "split({t})", "splitlines()", "startswith({t})", "strip()", "swapcase()", "title()",
    "translate({e})", "upper()", "zfill({n})",
    # bytes
    "decode()", "hex()", "hex('x', {n})",
    # list, tuple, dict, int, namespaces and loops
    "append({e})", "copy()", "count({e})", "extend({e})", "index({e})", "insert(0, {e})", "pop()", "reverse()", "sort()",
    "clear()", "get({e})", "items()", "keys()|list", "setdefault('x', {e})", "update({e})", "values()|list",
    "bit_length()", "to_bytes({n}, 'big')", "conjugate()", "x", "__class__", "cycle({e}, {e})", "previtem",
)  # fmt: skip
OPERATORS: Final = (
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "~",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "not in",
    "and",
    "or",
)
CALLS: Final = (
    "range({n})", "range({n})|list", "range({n}, 0, -1)|list", "dict(x={e})", "dict([({e}, {e})])", "namespace(x={e}).x",
    "cycler({e}, {e}).next()", "joiner({t})()", "lipsum(2)", "strftime_now({e})", "strftime_now('%Y' * {n})", "raise_exception({e})",
    "macro({e})", "caller()", "varargs", "kwargs", "self", "super()", "loop({e})", "loop.index * {n}", "loop.cycle({e})",
)  # fmt: skip


def _filled(pattern: str, expression: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A pattern with a drawn count for each {n}, a literal text for each {t}, an expression for each {e}."""
    holes = {"n": counts(), "t": literals(), "e": expression}
    pieces: list[st.SearchStrategy[str]] = []
    while (start := pattern.find("{")) >= 0:
        pieces += [st.just(pattern[:start]), holes[pattern[start + 1]]]
        pattern = pattern[start + 3 :]
    return st.tuples(*pieces, st.just(pattern)).map("".join)


def _one_filled(patterns: Sequence[str], expression: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(patterns).flatmap(lambda pattern: _filled(pattern, expression))


def counts() -> st.SearchStrategy[str]:
    """A number, small or large."""
    return st.sampled_from(COUNTS).map(str)


def literals() -> st.SearchStrategy[str]:
    """A text in quotes."""
    return st.sampled_from(TEXTS).map(lambda text: f"'{text}'")


def _atoms() -> st.SearchStrategy[str]:
    return st.one_of(
        literals(),
        counts(),
        st.sampled_from(NAMES),
        st.sampled_from(("true", "none", "1.5", "1e300", "0x" + "f" * 3000, "[]", "{}", "()", "'x'.encode()")),
        st.tuples(st.sampled_from(("'x'", "[1]", "(1,)", "'%9999d'", "'{0:9999}'", "['x'*1000]", "'f'")), counts()).map(
            lambda pair: f"({pair[0]} * {pair[1]})"
        ),
    )


def _extended(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Larger expressions out of smaller ones."""
    name = st.sampled_from(("x", "y", "'k'", "0", "-1"))
    subscript = st.one_of(inner, name, st.tuples(counts(), counts()).map(":".join), st.just("1:"), st.just("::-1"))
    return st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, _one_filled(FILTERS, inner)).map(lambda parts: f"({parts[0]})|{parts[1]}"),
        st.tuples(inner, st.sampled_from(("is", "is not")), _one_filled(TESTS, inner)).map(
            lambda parts: f"(({parts[0]}) {parts[1]} {parts[2]})"
        ),
        st.tuples(inner, _one_filled(METHODS, inner)).map(lambda parts: f"({parts[0]}).{parts[1]}"),
        st.tuples(inner, subscript).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        _one_filled(CALLS, inner),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]}, {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"{{{parts[0]}: {parts[1]}}}"),
        inner.map(lambda part: f"(not {part})"),
        inner.map(lambda part: f"(-{part})"),
    )


def expressions() -> st.SearchStrategy[str]:
    """An expression of a few levels."""
    return st.recursive(_atoms(), _extended, max_leaves=6)


def _growth(expression: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A value that doubles, or is copied, turn by turn, and a use of it."""
    seeds = ("'x'", "[1]", "(1,)", "{'k': 1}", "1", "'x'.encode()")
    steps = (
        "[ns.a, ns.a]", "(ns.a, ns.a)", "{'k': ns.a, 'l': ns.a}", "ns.a + ns.a", "ns.a ~ ns.a", "ns.a * 2", "[ns.a, body[1:]]",
        "ns.a|list + ns.a|list", "ns.a|join(ns.a)", "ns.a|replace('x', 'xx')", "ns.a * ns.a", "ns.a ** 2", "dict(k=ns.a, l=ns.a)",
        "[ns.a, ('x' * 1000000)[1:]]", "namespace(a=ns.a, b=ns.a)", "ns.a|tojson", "ns.a|string ~ ns.a|string", "ns.a|pprint",
    )  # fmt: skip
    uses = (
        "ns.a", "ns.a is eq ns.a|list", "{}[ns.a]", "ns.a|length", "ns.a|tojson", "ns.a == [ns.a]", "ns.a in [ns.a, 1]", "{ns.a: 1}",
        "ns.a|string|length", "'%s' % ns.a", "'{}'.format(ns.a)", "ns.a|sort", "ns.a|unique|list", "ns.a|sum(start=[])", "ns.a|pprint",
        "[ns.a, ns.a]|groupby(0)|list", "ns.a|map('string')|join", "ns.a|max", "ns.a ~ ''", "ns.a|urlize", "ns.a|wordwrap(1)",
    )  # fmt: skip
    turns = st.sampled_from((3, 12, 20, 26, 30))
    return st.tuples(
        st.sampled_from(seeds), turns, st.one_of(st.sampled_from(steps), expression), st.sampled_from(uses)
    ).map(
        lambda parts: (
            f"{{% set ns = namespace(a={parts[0]}) %}}{{% for i in range({parts[1]}) %}}{{% set ns.a = {parts[2]} %}}"
            f"{{% endfor %}}{{{{ {parts[3]} }}}}"
        )
    )


def _doubled_block(turns: int) -> str:
    return (
        "{% set ns = namespace(s='x') %}"
        f"{{% for i in range({turns}) %}}{{% set ns.s %}}{{{{ ns.s }}}}{{{{ ns.s }}}}{{% endset %}}{{% endfor %}}"
    )


def _recursive_loop(depth: int) -> str:
    return f"{{% for i in [[1]] * 2 recursive %}}{{% if loop.depth < {depth} %}}{{{{ loop([[1]] * 2) }}}}{{% endif %}}x{{% endfor %}}"


def _recursive_macro(depth: int) -> str:
    return f"{{% macro m(n) %}}{{% if n %}}{{{{ m(n - 1) }}}}{{{{ m(n - 1) }}}}{{% endif %}}x{{% endmacro %}}{{{{ m({depth}) }}}}"


def _bodies(body: st.SearchStrategy[str], expression: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Statements around other ones."""
    head = st.tuples(expression, body)
    return st.one_of(
        head.map(lambda parts: f"{{% for i in {parts[0]} %}}{parts[1]}{{% else %}}none{{% endfor %}}"),
        head.map(lambda parts: f"{{% for i, b in {parts[0]} if i %}}{parts[1]}{{{{ loop.index }}}}{{% endfor %}}"),
        st.tuples(counts(), body).map(lambda parts: f"{{% for i in range({parts[0]}) %}}{parts[1]}{{% endfor %}}"),
        head.map(lambda parts: f"{{% if {parts[0]} %}}{parts[1]}{{% elif a %}}b{{% else %}}c{{% endif %}}"),
        head.map(lambda parts: f"{{% with a = {parts[0]} %}}{parts[1]}{{% endwith %}}"),
        head.map(lambda parts: f"{{% macro macro(a, b={parts[0]}) %}}{parts[1]}{{% endmacro %}}{{{{ macro(1) }}}}"),
        head.map(
            lambda parts: (
                f"{{% macro macro(a) %}}{{{{ caller(a) }}}}{{{{ caller(a) }}}}{{% endmacro %}}"
                f"{{% call(b) macro({parts[0]}) %}}{parts[1]}{{% endcall %}}"
            )
        ),
        body.map(lambda part: f"{{% set a %}}{part}{{% endset %}}{{{{ a }}}}{{{{ a }}}}"),
        body.map(lambda part: f"{{% set a | upper %}}{part}{{% endset %}}{{{{ a }}}}"),
        st.tuples(_one_filled([pattern.partition("|")[0] for pattern in FILTERS], expression), body).map(
            lambda parts: f"{{% filter {parts[0]} %}}{parts[1]}{{% endfilter %}}"
        ),
        body.map(lambda part: f"{{% autoescape true %}}{part}{{% endautoescape %}}"),
        st.tuples(body, body).map("".join),
    )


def templates() -> st.SearchStrategy[str]:
    """A whole template."""
    expression = expressions()
    leaf = st.one_of(
        expression.map(lambda part: f"{{{{ {part} }}}}"),
        expression.map(lambda part: f"{{% set a = {part} %}}{{{{ a }}}}"),
        _growth(expression),
        st.integers(2, 30).map(_doubled_block),
        st.integers(2, 30).map(_recursive_loop),
        st.integers(2, 30).map(_recursive_macro),
        st.sampled_from(("plain text\n", "{# a comment #}", "{% raw %}{{ }}{% endraw %}", "{%- set a, b = 1, 2 -%}")),
    )
    return st.recursive(leaf, lambda inner: _bodies(inner, expression), max_leaves=4)
