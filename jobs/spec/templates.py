"""A job's templates before any row is seen: where they stand in the spec, whether they are jinja2, which columns they need."""

from collections.abc import Iterator, Mapping, Sequence

from jinja2 import TemplateSyntaxError

from jobs.spec.key_paths import KeyPath, dotted
from jobs.spec.places import Places
from pipelines.errors import TaskError
from pipelines.job import ClassifyTask, ExtractTask, GenerateTask, Task
from pipelines.templates.templates import RowTemplate


def templates_of(task: Task) -> Iterator[tuple[KeyPath, str]]:
    """Every template of a task with its key path."""
    match task:
        case GenerateTask():
            if task.prompt is not None:
                yield ("task", "prompt"), task.prompt
            for index, message in enumerate(task.messages or ()):
                yield ("task", "messages", index, "role"), message["role"]
                yield from _templates_in(("task", "messages", index, "content"), message["content"])
        case ClassifyTask() | ExtractTask():
            yield ("task", "text"), task.text
            if task.question is not None:
                yield ("task", "question"), task.question


def _templates_in(path: KeyPath, content: str | Sequence[Mapping[str, str]]) -> Iterator[tuple[KeyPath, str]]:
    """A message's content: one template, or one a part."""
    if isinstance(content, str):
        yield path, content
    else:
        yield from (((*path, number, "text"), part["text"]) for number, part in enumerate(content))


def template_problems(task: Task, places: Places) -> list[str]:
    """One line a template that cannot be used, with the line of the YAML where the text allows it."""
    problems = []
    for path, text in templates_of(task):
        try:
            RowTemplate(text, place=dotted(path))
        except TaskError as error:
            line = error.__cause__.lineno if isinstance(error.__cause__, TemplateSyntaxError) else 1
            problems.append(places.problem_in_text(path, line, error.message))
    return problems


def required_columns(task: Task) -> list[tuple[KeyPath, str]]:
    """Every column the input must have for the task, with the key that needs it: those its templates read without asking first
    whether they exist (`is defined`, `default`), and the column of token ids.
    """
    needed: list[tuple[KeyPath, str]] = [
        (path, column)
        for path, text in templates_of(task)
        for column in sorted(RowTemplate(text, place=dotted(path)).required_columns)
    ]
    if isinstance(task, GenerateTask) and task.prompt_token_ids is not None:
        needed.append((("task", "prompt_token_ids"), task.prompt_token_ids))
    return needed
