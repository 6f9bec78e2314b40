"""Compiling templates of strangers: it does none of their work, and ends within bounds whatever they are."""

import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from jinja2 import TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from models.templates.sandbox import BudgetedEnvironment
from models.templates.source import MAX_SOURCE_CHARS, MAX_TOKENS
from pipelines.errors import TaskError
from pipelines.templates.templates import RowTemplate
from tests.helpers.matrix import first_of_each
from tests.helpers.models.jinja_grammar import templates
from tests.helpers.models.template_bombs import BOMBS

MAX_S, MAX_BYTES = 1.0, 50_000_000

# Each is computed by jinja2 itself while it compiles, by another rule of its own.
FOLDED = {
    "a filter": "{{ 1|round(3000000, 'ceil') }}",
    "a filter of an argument": "{{ x|default(1|round(3000000, 'ceil')) }}",
    "a test": "{{ (1|round(3000000, 'ceil')) is odd }}",
    "a comparison": "{{ 1|round(3000000, 'ceil') == 2 }}",
    "a subscript": "{{ ('x'|center(60000000))[1:] }}",
    "joined": "{{ 'x'|center(60000000) ~ 'y' }}",
    "an attribute": "{{ ('x'|center(60000000)).upper }}",
    "a choice": "{{ 'a' if 1|round(3000000, 'ceil') else 'b' }}",
    "a condition": "{% if 1|round(3000000, 'ceil') %}x{% endif %}",
    "negated": "{{ not 1|round(3000000, 'ceil') }}",
    "an escaping": "{% autoescape 1|round(3000000, 'ceil') %}x{% endautoescape %}",
    "a list": "{{ [1|round(3000000, 'ceil')] }}",
}
LARGE = {
    "too many words": "{{ [" + "1," * MAX_TOKENS + "] }}",
    "names said again and again": "".join(f"{{% set a{i} = 1 %}}{{% include 'x' %}}" for i in range(1500)),
    "scopes said again and again": "".join(
        f"{{% set a{i} = 1 %}}{{% block b{i} scoped %}}{{% endblock %}}" for i in range(1500)
    ),
    "too long": "x" * (MAX_SOURCE_CHARS + 1),
    "brackets": "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
    "a long sum": "{{ " + "1+" * 2000 + "1 }}",
    "signs": "{{ " + "-" * 5000 + "1 }}",
    "filters": "{{ 1" + "|abs" * 1500 + " }}",
    "loops": "{% for i in x %}" * 25 + "{% endfor %}" * 25,
    "conditions": "{% if x %}" * 200 + "{% endif %}" * 200,
    "a number of many digits": "{{ " + "9" * 10_000 + " }}",
    "a hexadecimal number": "{{ 0x" + "f" * 10_000 + " }}",
}

LONG_TO_MAKE = ("scopes said again and again", "names said again and again", "too many words")

CHAT = BudgetedEnvironment(filters={})


def taken(work: Callable[[], object]) -> tuple[float, int]:
    """Seconds of computing, and the most bytes held."""
    began = time.process_time()
    work()
    seconds = time.process_time() - began
    tracemalloc.start()
    try:
        work()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def compiled(source: str) -> None:
    """As a row template, and as a checkpoint's."""
    CHAT.compile_guarded(source)
    RowTemplate(source, place="task.prompt")


def refused(source: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        CHAT.compile_guarded(source)
    with pytest.raises(TaskError):
        RowTemplate(source, place="task.prompt")


@pytest.mark.parametrize("name", [*BOMBS, *FOLDED])
def test_compiling_does_nothing_of_what_a_template_says(name: str) -> None:
    source = {**BOMBS, **FOLDED}[name]
    seconds, peak_bytes = taken(lambda: compiled(source))
    assert seconds < MAX_S
    assert peak_bytes < MAX_BYTES


def test_jinja_itself_computes_those_while_it_compiles() -> None:
    """What this file holds would mean nothing if they were not computed."""
    computed = []
    for name, source in FOLDED.items():
        environment = SandboxedEnvironment()

        def noted(*args: object, name: str = name) -> object:
            computed.append(name)
            return 1 if isinstance(args[0], int) else "x"

        environment.filters |= {"round": noted, "center": noted}
        environment.compile(source)
    assert set(computed) == set(FOLDED)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(templates())
def test_compiling_any_template_is_harmless(source: str) -> None:
    seconds, peak_bytes = taken(lambda: compiled(source))
    assert seconds < MAX_S
    assert peak_bytes < MAX_BYTES


@pytest.mark.parametrize("name", first_of_each(LARGE, kind=lambda name: name in LONG_TO_MAKE or name))
def test_a_template_that_is_too_large_is_refused_before_it_costs_much(name: str) -> None:
    seconds, peak_bytes = taken(lambda: refused(LARGE[name]))
    assert seconds < 3 * MAX_S
    assert peak_bytes < MAX_BYTES


def test_what_published_templates_are_is_far_within_the_bounds() -> None:
    compiled("You are a helpful assistant. " * 40_000 + "{{ body }}")
    compiled("{% if role == 'user' %}{{ '<|im_start|>' + role + '\\n' + content }}{% endif %}" * 400)


def test_what_is_wrong_with_a_line_of_a_million_braces_is_told_at_once() -> None:
    source = "{{" * 500_000 + "ticket text }}"
    seconds, _ = taken(lambda: refused(source))
    assert seconds < MAX_S
