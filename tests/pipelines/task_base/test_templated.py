"""Templates of a task found and changed: every kind has the changed ones where it had the others, and nothing else is another."""

from dataclasses import replace
from typing import Any

import pytest

from pipelines.task_base.task import Task
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.batch import BatchTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.embed import EmbedTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.rerank import RerankTask
from pipelines.tasks.several.task import SeveralTask
from pipelines.tasks.spans import SpansTask

MESSAGES = (
    {"role": "system", "content": "{{ a }}"},
    {"role": "{{ r }}", "content": [{"type": "text", "text": "{{ b }}"}, {"type": "text", "text": "c"}]},
)
LABELS = ("x", "y")

TASKS: dict[str, tuple[Task, dict[str, str]]] = {
    "generate": (GenerateTask(prompt="{{ a }}"), {"task.prompt": "{{ a }}"}),
    "chat": (
        GenerateTask(messages=MESSAGES),
        {
            "task.messages[0].role": "system",
            "task.messages[0].content": "{{ a }}",
            "task.messages[1].role": "{{ r }}",
            "task.messages[1].content[0].text": "{{ b }}",
            "task.messages[1].content[1].text": "c",
        },
    ),
    "token ids": (GenerateTask(prompt_token_ids="ids"), {}),
    "labels": (
        LabelsTask(text="{{ a }}", question="{{ q }}", labels=LABELS),
        {"task.text": "{{ a }}", "task.question": "{{ q }}"},
    ),
    "labels of one's own": (LabelsTask(prompt="{{ a }}", labels=LABELS), {"task.prompt": "{{ a }}"}),
    "classes": (ClassifyTask(text="{{ a }}"), {"task.text": "{{ a }}"}),
    "spans": (SpansTask(text="{{ a }}"), {"task.text": "{{ a }}"}),
    "answer": (AnswerTask(text="{{ a }}", question="who?"), {"task.text": "{{ a }}", "task.question": "who?"}),
    "embed": (EmbedTask(text="{{ a }}", prompt="query: "), {"task.text": "{{ a }}"}),
    "rerank": (RerankTask(query="{{ q }}", document="{{ d }}"), {"task.query": "{{ q }}", "task.document": "{{ d }}"}),
    "batch": (BatchTask(), {}),
    "several": (
        SeveralTask(tasks={"one": EmbedTask(text="{{ a }}"), "two": GenerateTask(prompt="{{ b }}")}),
        {"tasks.one.text": "{{ a }}", "tasks.two.prompt": "{{ b }}"},
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_kind_tells_its_templates_and_has_them_changed(name: str) -> None:
    task, templates = TASKS[name]
    assert dict(task.templates()) == templates
    changed = task.with_templates(str.upper)
    assert dict(changed.templates()) == {place: text.upper() for place, text in templates.items()}
    assert changed.with_templates(lambda text: text) == changed
    assert task.with_templates(lambda text: text) == task


def test_what_is_no_template_stays() -> None:
    task = LabelsTask(messages=MESSAGES, labels=LABELS, examples=({"a": "{{ a }}", "label": "x"},))
    changed: Any = task.with_templates(str.upper)
    assert changed.messages[1]["content"][0] == {"type": "text", "text": "{{ B }}"}
    assert replace(changed, messages=MESSAGES) == task
