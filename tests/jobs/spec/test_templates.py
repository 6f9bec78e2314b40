"""Which columns a task needs, and which key needs them."""

from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places
from jobs.spec.templates import TaskTemplates
from pipelines.task_base.task import Task
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask

PLACES = Places(file="s.yaml", lines={}, literal_lines={}, overrides={})


def required_columns(task: Task) -> list[tuple[KeyPath, str]]:
    templates = TaskTemplates.of(task, PLACES)
    assert not templates.problems
    return list(templates.required_columns)


def test_columns_that_something_stands_in_for_are_not_required() -> None:
    task = ClassifyTask(text="{{ b }} {{ a.x }} {{ c | default('') }} {% if d is defined %}{{ d }}{% endif %}")
    assert required_columns(task) == [(("task", "text"), "a"), (("task", "text"), "b")]


def test_columns_that_are_read_through_row_are_required_too() -> None:
    task = ClassifyTask(text='{{ row["Ticket Text"] }} {{ row.b }} {{ row["c"] | default("") }}')
    assert required_columns(task) == [(("task", "text"), "Ticket Text"), (("task", "text"), "b")]


def test_every_message_says_what_it_needs() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ body }}"})
    assert required_columns(GenerateTask(messages=messages)) == [(("task", "messages", 1, "content"), "body")]


def test_a_role_is_a_template_too() -> None:
    messages = ({"role": "{{ speaker }}", "content": "{{ body }}"},)
    assert required_columns(GenerateTask(messages=messages)) == [
        (("task", "messages", 0, "role"), "speaker"),
        (("task", "messages", 0, "content"), "body"),
    ]


def test_column_of_token_ids_is_required() -> None:
    assert required_columns(GenerateTask(prompt_token_ids="ids")) == [(("task", "prompt_token_ids"), "ids")]


def test_question_is_a_template_too() -> None:
    task = AnswerTask(text="{{ body }}", question="What is {{ thing }}?")
    assert required_columns(task) == [(("task", "text"), "body"), (("task", "question"), "thing")]
