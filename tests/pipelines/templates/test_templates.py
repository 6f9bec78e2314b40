import datetime as dt
import itertools
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined, Template, UndefinedError

from pipelines.errors import RowError, TaskError
from pipelines.templates.templates import RowTemplate

ROW: dict[str, Any] = {
    "body": "Hello <b>",
    "nothing": None,
    "count": 3,
    "price": Decimal("1.50"),
    "day": dt.date(2024, 2, 3),
    "tags": ["red", "blue"],
    "holes": ["red", None],
    "meta": {"order": 7, "note": None},
    "raw": b"bytes",
}


def render(source: str) -> str:
    return RowTemplate(source, place="task.text").render(ROW)


def error_of(source: str) -> RowError:
    with pytest.raises(RowError) as caught:
        render(source)
    return caught.value


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("no columns at all", "no columns at all"),
        ("{{ body }}!", "Hello <b>!"),
        ("a final newline stays\n", "a final newline stays\n"),
        ("{{ count }} at {{ price }} on {{ day }}", "3 at 1.50 on 2024-02-03"),
        ("{{ tags | join(', ') }}", "red, blue"),
        ("{% for tag in tags %}{{ loop.index }}{{ tag }} {% endfor %}", "1red 2blue "),
        ("{{ meta.order }}/{{ meta['order'] }}", "7/7"),
        ("{{ nothing | default('', true) }}", ""),
        ("{{ absent | default('none') }}", "none"),
        ("{% if nothing %}x{% else %}y{% endif %}", "y"),
        ("{% if nothing is none %}null{% endif %}", "null"),
        ("{{ 'x' if count > 5 }}", ""),
        ("{{ '%.1f' % count }} {{ '{:>5}'.format(count) }}", "3.0     3"),
        ("{{ meta | tojson }}", '{"order": 7, "note": null}'),
        ("{{ holes | reject('none') | join }}", "red"),
        ("{{ raw.decode() }}", "bytes"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(body) }}", "[Hello <b>]"),
        ("{% filter upper %}{{ body }}{% endfilter %}", "HELLO <B>"),
    ],
)
def test_a_template_renders(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ nothing }}", "nothing"),
        ("{{ body ~ nothing }}", "nothing"),
        ("{{ nothing | trim }}", "nothing"),
        ("{{ nothing | upper | trim }}", "nothing"),
        ("{{ meta.note }}", "meta.note"),
        ("{{ nothing.order }}", "order"),
        ("{{ nothing['order'] }}", "order"),
        ("{{ holes }}", "holes"),
        ("{{ meta }}", "meta"),
        ("{{ holes | join }}", "join"),
        ("{{ '%s' % nothing }}", "%"),
        ("{{ '{}'.format(nothing) }}", "format"),
        ("{{ '%s' | format(nothing) }}", "format"),
        ("{{ nothing + 1 }}", "+"),
        ("{% for x in nothing %}{% endfor %}", "nothing"),
        ("{% set x %}{{ nothing }}{% endset %}{{ x }}", "nothing"),
    ],
)
def test_a_null_that_would_be_printed_is_named(source: str, named: str) -> None:
    error = error_of(source)
    assert error.kind == "null_value"
    assert error.message.startswith("task.text: ")
    assert named in error.message.split(";")[0]
    assert "default" in error.message


@pytest.mark.parametrize(
    "source", ["{{ absent }}", "{{ absent | trim }}", "{{ absent.field }}", "{{ meta.absent }}", "{{ body ~ absent }}"]
)
def test_a_missing_column_or_field_is_named(source: str) -> None:
    error = error_of(source)
    assert error.kind == "missing_value"
    assert "absent" in error.message


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ count + body }}", "TypeError"),
        ("{{ raw }}", "binary"),
        ("{{ tags | map('upper') }}", "| list or | join"),
        ("{{ range }}", "function"),
        ("{{ body.__class__ }}", "unsafe"),
        ("{{ tags.append('x') }}", "unsafe"),
    ],
)
def test_what_else_goes_wrong_says_why(source: str, reason: str) -> None:
    error = error_of(source)
    assert error.kind == "template_error"
    assert reason in error.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ [body] * 10**9 }}",
        "{{ 10 ** (10 ** 9) }}",
        "{{ body | center(10**9) }}",
        "{{ body.ljust(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ ('x' * 1000000) | replace('x', 'x' * 1000000) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}.{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='xx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    ],
)
def test_a_template_cannot_take_the_worker_with_it(source: str) -> None:
    assert error_of(source).kind == "template_error"


def test_a_row_that_went_over_its_limits_leaves_the_next_one_alone() -> None:
    template = RowTemplate("{{ 'x' * count }}", place="task.text")
    with pytest.raises(RowError):
        template.render({"count": 10**9})
    assert template.render({"count": 3}) == "xxx"


def test_columns_are_what_the_template_reads_of_the_row() -> None:
    source = "{% set y = x %}{% for t in tags %}{{ t }}{{ y }}{% endfor %}{{ a | default('') }}{% if b is defined %}{{ b }}{% endif %}"
    template = RowTemplate(source, place="task.text")
    assert template.columns == {"x", "tags", "a", "b"}
    assert template.required_columns == {"x", "tags"}


def test_a_column_may_have_the_name_of_a_function() -> None:
    template = RowTemplate("{{ range }} {{ dict(a=1) }}", place="task.text")
    assert template.columns == {"range", "dict"}
    assert template.required_columns == frozenset()
    assert template.render({"range": "5 km"}) == "5 km {'a': 1}"


@pytest.mark.parametrize(
    "source", ["{{ x", "{% if %}", "{{ x | nosuch }}", "{% include 'x' %}", "{% extends 'x' %}", "{{ x | random }}"]
)
def test_a_template_that_cannot_be_compiled_is_an_error_of_the_task(source: str) -> None:
    with pytest.raises(TaskError) as caught:
        RowTemplate(source, place="task.messages[1].content")
    assert caught.value.place == "task.messages[1].content"


NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@given(name=NAMES, value=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_column_can_be_named(name: str, value: str) -> None:
    template = RowTemplate(f"{{{{ row[{json.dumps(name, ensure_ascii=False)}] }}}}", place="task.text")
    assert template.columns == template.required_columns == {name}
    assert not template.reads_all
    assert template.render({"other": 1, name: value}) == value


@given(name=NAMES, value=st.integers())
def test_any_key_of_an_object_comes_before_a_method_of_that_name(name: str, value: int) -> None:
    template = RowTemplate(f"{{{{ order[{json.dumps(name, ensure_ascii=False)}] }}}}", place="task.text")
    assert template.render({"order": {name: value}}) == str(value)


DICT_NAMES = [name for name in dir(dict) if not name.startswith("_")]


@pytest.mark.parametrize("name", DICT_NAMES)
def test_a_field_with_the_name_of_a_method_is_reached(name: str) -> None:
    row = {"order": {name: "here", "deep": [{name: "there"}]}, name: "column"}
    source = f"{{{{ order.{name} }}}} {{{{ order.deep[0].{name} }}}} {{{{ order['{name}'] }}}} {{{{ row.{name} }}}}"
    assert RowTemplate(source, place="task.text").render(row) == "here there here column"


def test_methods_of_an_object_are_there_where_it_has_no_such_field() -> None:
    source = "{% for key, value in meta.items() %}{{ key }}={{ value | default('-', true) }} {% endfor %}{{ meta.get('order') }}"
    assert render(source) == "order=7 note=- 7"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('{{ row["body"] }}|{{ row.body }}|{{ row.get("body") }}', "Hello <b>|Hello <b>|Hello <b>"),
        ('{{ row["absent"] | default("none") }} {{ row.get("absent", "no") }}', "none no"),
        ('{{ row["nothing"] | default("", true) }}', ""),
        ('{{ "body" in row }} {{ "absent" in row }} {{ "absent" not in row }}', "True False True"),
        ('{% if row["absent"] is defined %}x{% else %}y{% endif %}', "y"),
        ("{{ row | length }} {{ row.keys() | list | first }}", "9 body"),
        ("{% set name = 'count' %}{{ row[name] }}", "3"),
        ("{% for row in tags %}{{ row }}{% endfor %}", "redblue"),
        ("{% set row = meta %}{{ row.order }}{{ row }}", "7"),
    ],
)
def test_row_is_the_mapping_of_all_columns(source: str, text: str) -> None:
    if source.endswith("{{ row }}"):
        assert error_of(source).kind == "null_value"  # the template's own variable, an object with a null
    else:
        assert render(source) == text


def test_a_column_named_row_is_reached_through_row() -> None:
    assert RowTemplate('{{ row["row"] }} {{ row.row }}', place="task.text").render({"row": "mine"}) == "mine mine"


@pytest.mark.parametrize("source", ["{{ row }}", "a {{ row }} b", "{% if x %}{{ row }}{% endif %}"])
def test_printing_row_itself_is_refused_before_the_run(source: str) -> None:
    with pytest.raises(TaskError, match=r"prints row, the mapping of all columns: name one, .*row\[\"row\"\]"):
        RowTemplate(source, place="task.text")


@pytest.mark.parametrize(
    ("source", "columns", "required", "reads_all"),
    [
        ('{{ row["a b"] }}{{ c }}', {"a b", "c"}, {"a b", "c"}, False),
        ('{{ row["a"]["b"].c }}', {"a"}, {"a"}, False),
        ('{{ row.a.b }}', {"a"}, {"a"}, False),
        ('{{ row["range"] }}', {"range"}, {"range"}, False),
        ('{{ row["a"] | default("") }}{{ row.b is defined }}{{ "c" in row }}{{ row.get("d", e) }}', set("abcde"), {"e"}, False),
        ("{{ row[name] }}", {"name"}, {"name"}, True),
        ("{{ row[0] }}", set(), set(), True),
        ("{{ row | tojson }}", set(), set(), True),
        ("{{ row.items() | list }}", set(), set(), True),
        ("{% for name in row %}{{ name }}{% endfor %}", set(), set(), True),
        ("{% set all = row %}{{ all.a }}", set(), set(), True),
        ("{% for row in a %}{{ row.b }}{% endfor %}", {"a"}, {"a"}, False),
        ("{% for row in a %}{{ row.b }}{% endfor %}{{ row.c }}", {"a", "c"}, {"a", "c"}, False),
        ("{% macro m(row) %}{{ row.b }}{% endmacro %}{{ m(a) }}", {"a"}, {"a"}, False),
        ("{% macro m() %}{{ row.b }}{% endmacro %}{{ m() }}", {"b"}, {"b"}, False),
        ("{% for x in a %}{{ row.b }}{% endfor %}", {"a", "b"}, {"a", "b"}, False),
        ("{% with row = a %}{{ row.b }}{% endwith %}", {"a"}, {"a"}, False),
    ],
)  # fmt: skip
def test_columns_are_known_however_they_are_named(
    source: str, columns: set[str], required: set[str], reads_all: bool
) -> None:
    template = RowTemplate(source, place="task.text")
    assert template.columns == columns
    assert template.required_columns == required
    assert template.reads_all == reads_all


@pytest.mark.parametrize(
    ("source", "required"),
    [
        ("{% if a %}{% set b = 1 %}{{ b }}{% endif %}", {"a"}),
        ("{% if a %}{% set b = 1 %}{% else %}{% set b = 2 %}{% endif %}{{ b }}", {"a"}),
        ("{% if a %}{% set b = 1 %}{% elif c %}{% set b = 2 %}{{ b }}{% endif %}", {"a", "c"}),
        ("{% if a %}{% set b %}x{% endset %}{{ b }}{% endif %}", {"a"}),
        ("{% if a %}{% set n = namespace(x=0) %}{% for i in 'ab' %}{% set n.x = i %}{% endfor %}{{ n.x }}{% endif %}", {"a"}),
        ("{% if a %}{% macro b(c) %}{{ c }}{% endmacro %}{{ b(1) }}{% endif %}", {"a"}),
        ("{% if a %}{% set b, c = 1, 2 %}{{ b + c }}{% endif %}", {"a"}),
        ("{% for b in a %}{{ b }}{% endfor %}{% if c %}{% set b = 1 %}{{ b }}{% endif %}", {"a", "c"}),
        ("{% set b = b | upper %}{{ b }}", {"b"}),
        ("{% if a %}{% set b = b | upper %}{% endif %}{{ b }}", {"a", "b"}),
        ("{{ b }}{% if a %}{% set b = 1 %}{% endif %}", {"a", "b"}),
        ("{% if a %}{{ b }}{% else %}{% set b = 1 %}{% endif %}", {"a", "b"}),
        ("{% for b in a %}{{ b }}{% endfor %}{{ b }}", {"a", "b"}),
        ("{% for i in a %}{% set b = i %}{% endfor %}{{ b }}", {"a", "b"}),
        ("{% with b = a %}{{ b }}{% endwith %}{{ b }}", {"a", "b"}),
        ("{% macro m(b) %}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ b }}", {"b", "c"}),
        ("{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(b) m() %}{{ b }}{% endcall %}{{ b }}", {"b"}),
        ("{% filter upper %}{{ b }}{% endfilter %}", {"b"}),
        ("{{ a if c else b }}", {"a", "b", "c"}),
    ],
)  # fmt: skip
def test_what_a_template_sets_itself_is_no_column_that_it_needs(source: str, required: set[str]) -> None:
    """jinja2 itself finds nothing missing where all required columns are given, and something where one is not."""
    assert RowTemplate(source, place="task.text").required_columns == required
    plain = Environment(undefined=StrictUndefined).from_string(source)
    rows = [dict(zip("abc", values, strict=True)) for values in itertools.product(["", "xy"], repeat=3)]

    def fails(names: set[str]) -> bool:
        return any(_is_undefined(plain, {name: row[name] for name in names}) for row in rows)

    assert not fails(required)
    assert all(fails(required - {name}) for name in required)


def _is_undefined(template: Template, row: dict[str, str]) -> bool:
    try:
        template.render(row)
    except UndefinedError:
        return True
    return False


def test_a_missing_column_is_named_when_it_is_read_through_row() -> None:
    error = error_of('{{ row["Ticket Text"] }}')
    assert error.kind == "missing_value"
    assert "'Ticket Text' is no column of this row" in error.message
    assert error_of("{{ row['nothing'] }}").kind == "null_value"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ Ticket Text }}", 'a column named "Ticket Text" is written {{ row["Ticket Text"] }}'),
        ("x\n{{- 2nd ticket -}}", 'a column named "2nd ticket" is written {{ row["2nd ticket"] }}'),
        ("{{ a b }}{{ c }}", 'a column named "a b" is written {{ row["a b"] }}'),
        ("{{ price in € }}", 'a column named "price in €" is written {{ row["price in €"] }}'),
        ("{{ x", 'a column whose name is no plain word is written like {{ row["Ticket Text"] }}'),
    ],
)
def test_a_name_that_does_not_parse_is_told_how_to_be_written(source: str, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        RowTemplate(source, place="task.text")
    assert caught.value.message.endswith(said)
