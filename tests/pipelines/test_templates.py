import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from pipelines.errors import RowError, TaskError
from pipelines.templates import RowTemplate

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
