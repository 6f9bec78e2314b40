"""A job's templates before any row is seen: where they stand in the spec, whether they are jinja2, which columns they need."""

from jinja2 import TemplateSyntaxError

from jobs.spec.key_paths import KeyPath, key_path
from jobs.spec.places import Places
from pipelines.errors import TaskError
from pipelines.task_base.task import Task
from pipelines.templates.templates import RowTemplate


def template_problems(task: Task, places: Places) -> list[str]:
    """One line for each template that cannot be used, with the line of the YAML where the text allows it."""
    problems = []
    for place, text in task.templates():
        try:
            RowTemplate(text, place=place)
        except TaskError as error:
            line = error.__cause__.lineno if isinstance(error.__cause__, TemplateSyntaxError) else 1
            problems.append(places.problem_in_text(key_path(place), line, error.message))
    return problems


def required_columns(task: Task) -> list[tuple[KeyPath, str]]:
    """Every column the input must have for the task, with the key that needs it: those its templates read without asking first
    whether they exist (`is defined`, `default`), and those that it names itself.
    """
    read = [
        (place, column)
        for place, text in task.templates()
        for column in sorted(RowTemplate(text, place=place).required_columns)
    ]
    return [(key_path(place), column) for place, column in (*read, *task.columns_named())]
