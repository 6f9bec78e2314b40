"""`parts` of a job's spec: what they are, where they may be printed, and at which key and line a mistake is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import SpecError
from jobs.spec.job import LoadedSpec, load_spec

SpecWriter = Callable[[str], Path]

HEAD = "name: j\nmodel: {path: /m}\ninput: {paths: [/i]}\noutput: {path: /o}\n"
GENERATE = 'task: {{kind: generate, prompt: "{}"}}\n'
PARTS = 'parts:\n- "Shop: {{ shop }}"\n- "Text: {{ body }}"\n'


def loaded(write_spec: SpecWriter, text: str) -> LoadedSpec:
    return load_spec(write_spec(HEAD + text))


def test_a_job_has_its_parts_as_they_were_given(write_spec: SpecWriter) -> None:
    found = loaded(write_spec, GENERATE.format("{{ parts }}\\nTopic:") + PARTS)
    assert found.job.parts == ("Shop: {{ shop }}", "Text: {{ body }}")
    assert tuple(found.named_columns) == (
        (("parts", 0), "shop"),
        (("parts", 1), "body"),
    )


def test_without_the_key_parts_are_a_column(write_spec: SpecWriter) -> None:
    found = loaded(write_spec, GENERATE.format("{{ parts | upper }} {{ parts }}"))
    assert found.job.parts == ()
    assert tuple(found.named_columns) == ((("task", "prompt"), "parts"),)


@pytest.mark.parametrize(
    "task",
    [
        "task: {kind: classify, text: '{{ parts }}', labels: [a, b]}",
        "task: {kind: classify, prompt: '{{ parts }}', labels: [a, b]}",
        "task: {kind: classify, text: x, question: '{{ parts }}?', labels: [a, b]}",
        "task: {kind: generate, messages: [{role: user, content: [{type: text, text: '{{ parts }}'}]}]}",
        "task: {kind: extract, text: '{{ parts }}', question: 'who?'}",
        "task: {kind: embed, text: '{{ parts }}'}",
        "task: {kind: rerank, query: q, document: '{{ parts }}'}",
        "task: {kind: classify, text: '{{ parts }}', questions: {q: {labels: [a, b]}, r: {labels: [a, b]}}}",
        "tasks: {a: {kind: embed, text: x}, b: {kind: embed, text: '{{ parts }}'}}",
    ],
)
def test_templates_of_every_kind_may_print_them(write_spec: SpecWriter, task: str) -> None:
    assert len(loaded(write_spec, f"{task}\n{PARTS}").job.parts) == 2


@pytest.mark.parametrize(
    ("task", "parts", "problem"),
    [
        ("{{ body }}", PARTS, r":6: parts: no template of the task prints them; write {{ parts }} where they are"),
        ("{# {{ parts }} #}", PARTS, r":6: parts: no template of the task prints them"),
        ("{{ parts | upper }}", PARTS, r":5: task\.prompt: uses parts, .* in another way than {{ parts }}: .* no filter"),
        ("{{ parts }}{% if parts %}x{% endif %}", PARTS, r':5: task\.prompt: uses parts, .*; a column .* is row\["parts"\]'),
        ("{{ parts }}{% set parts = 1 %}", PARTS, r":5: task\.prompt: uses parts"),
        ("{{ parts ", PARTS, r":5: task\.prompt: the template cannot be used"),
        ("{{ parts }}", 'parts: ["{{ a }}"]\n', r":6: parts: was \[.*; it must be a list of 2 to 12 templates"),
        ("{{ parts }}", "parts: []\n", r":6: parts: was .*; it must be a list of 2 to 12 templates"),
        ("{{ parts }}", "parts: " + str(["{{ a }}"] * 13) + "\n", r":6: parts: was .*; it must be a list of 2 to 12 templates"),
        ("{{ parts }}", "parts: '{{ a }}'\n", r":6: parts: was '{{ a }}'; it must be a list of 2 to 12 templates"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- ""\n', r":8: parts\[1\]: was ''; it must be a list .*, none of them empty"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- 7\n', r":8: parts\[1\]: was 7; it must be"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- "{{ b"\n', r":8: parts\[1\]: the template cannot be used"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- |\n  Text:\n  {{ b | nope }}\n', r":10: parts\[1\]: the template cannot be used"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- "Be brief."\n', r":8: parts\[1\]: was 'Be brief\.', which names no column"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- "  "\n', r":8: parts\[1\]: was '  ', which names no column"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- "{{ parts }}"\n', r":8: parts\[1\]: is one of the parts, and cannot have parts"),
        ("{{ parts }}", 'parts:\n- "{{ a }}"\n- "{% for parts in b %}x{% endfor %}"\n', r":8: parts\[1\]: is one of the parts"),
    ],
)  # fmt: skip
def test_mistakes_are_told_where_they_stand(write_spec: SpecWriter, task: str, parts: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        loaded(write_spec, GENERATE.format(task) + parts)


def test_a_batch_file_prints_none(write_spec: SpecWriter) -> None:
    batch = HEAD.replace("[/i]}", "[/i], format: openai-batch}").replace("/o}", "/o, format: openai-batch}")
    with pytest.raises(SpecError, match=r":5: parts: no template of the task prints them"):
        load_spec(write_spec(batch + PARTS))


def test_a_column_named_parts_is_read_through_row(write_spec: SpecWriter) -> None:
    found: Any = loaded(write_spec, "task: {kind: embed, text: '{{ row[\"parts\"] }} {{ parts }}'}\n" + PARTS)
    assert (("task", "text"), "parts") in found.named_columns
