"""`{{ parts }}` in templates, held against jinja2's own rendering."""

import pytest

from pipelines.parts.template import names_parts, prints_parts, with_parts, without_parts
from pipelines.templates.templates import RowTemplate

ROW = {"a": "A", "b": "B", "xs": [1, 2], "parts": "mine"}
PLAIN = (
    "{{ parts }}",
    "{{parts}}",
    "{{\tparts\n}}",
    "x {{- parts -}} y",
    "{% if a %}{{ parts }}{% endif %}",
    "é{{ parts }}\n",
)
OTHERS = (
    "{{ a }}",
    "{# {{ parts }} #}",
    "{% raw %}{{ parts }}{% endraw %}",
    "{{ '{{ parts }}' }}",
    '{{ row["parts"] }}',
    "{{ {'parts': 1}.parts }}",
    "parts { parts } {",
    "{%- raw -%} {{ parts }} {%- endraw -%} x",
)


def rendered(template: str) -> str:
    return RowTemplate(template, place="task.prompt").render(ROW)


@pytest.mark.parametrize("template", PLAIN)
def test_plain_parts_are_found_and_replaced(template: str) -> None:
    assert prints_parts(template)
    assert not names_parts(without_parts(template))
    joined = {"parts": "\n".join(["1A", "2B"])}
    expected = RowTemplate(template, place="p").render(ROW | joined)
    assert rendered(with_parts(template, ["1{{ a }}", "2{{ b }}"])) == expected


@pytest.mark.parametrize("template", OTHERS)
def test_what_only_looks_like_parts_stays(template: str) -> None:
    assert not prints_parts(template)
    assert not names_parts(template)
    assert with_parts(template, ["{{ a }}", "{{ b }}"]) == template
    assert rendered(without_parts(template)) == rendered(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ parts | upper }}", "{{ parts ~ a }}", "{{ parts.x }}", "{% if parts %}x{% endif %}", "{% set parts = a %}",
        "{% for parts in xs %}{% endfor %}", "{{ (parts) }}", "{{ f(parts) }}",
    ],
)  # fmt: skip
def test_other_uses_are_no_plain_parts(template: str) -> None:
    assert not prints_parts(template)
    assert names_parts(template)


@pytest.mark.parametrize(
    "parts",
    [
        ["{% set a = 'other' %}1", "{{ a }}"],
        ["{%- if a -%} x {%- endif -%}", "  {{- b -}}  "],
        ["{{ a }}  {#- c -#}", "{#- c -#}  {{ b }}"],
        ["JSON {", "{{ a }}{", "}} %}"],
        ["{% macro m() %}m{% endmacro %}{{ m() }}", "{% raw %}{{ x }}{% endraw %}"],
        ["{{ a }}\n", "\n{{ b }}"],
        ["{% for x in xs %}{{ x }},{% endfor %}", "{{ a }}"],
    ],
)
def test_parts_are_as_each_is_alone(parts: list[str]) -> None:
    alone = "\n".join(map(rendered, parts))
    assert rendered(with_parts("<{{ parts }}>", parts)) == f"<{alone}>"
    back = "\n".join(map(rendered, reversed(parts)))
    assert rendered(with_parts("{{ parts }}|{{ parts }}", parts[::-1])) == f"{back}|{back}"
