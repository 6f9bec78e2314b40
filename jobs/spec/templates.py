"""A job's templates before any row is seen: where they stand in the spec, whether they are jinja2, which columns they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jinja2 import TemplateSyntaxError

from jobs.spec.document.key_paths import KeyPath, key_path
from jobs.spec.document.places import Places
from jobs.spec.parts import part_place, part_template, template_around_parts, unprinted
from pipelines.errors import TaskError
from pipelines.task_base.task import Task
from pipelines.templates.templates import RowTemplate


class MakeTemplate(Protocol):
    """Compiles a template, which stands at a key."""

    def __call__(self, source: str, /, *, place: str) -> RowTemplate: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTemplates:
    """What compiling a task's templates told.

    `problems` has one line for each that cannot be used, with the line of the YAML where the text allows it. `required_columns`
    are those that the input must have for the task, with the key that needs them: what templates read without asking first
    whether it exists (`is defined`, `default`), and what the task names itself.
    """

    problems: tuple[str, ...]
    required_columns: tuple[tuple[KeyPath, str], ...]

    @classmethod
    def of(cls, task: Task, places: Places, parts: Sequence[str] = ()) -> "TaskTemplates":
        """Compiles each template of `task`, which stands at `places`, and the `parts` that they print."""
        problems: list[str] = []
        required: list[tuple[str, str]] = []
        own = [*task.templates()]
        compile_own: MakeTemplate = template_around_parts if parts else RowTemplate
        made = [(compile_own, place, text) for place, text in own]
        made += [(part_template, part_place(number), part) for number, part in enumerate(parts)]
        for make, place, text in made:
            try:
                template = make(text, place=place)
            except TaskError as error:
                line = error.__cause__.lineno if isinstance(error.__cause__, TemplateSyntaxError) else 1
                problems.append(places.problem_in_text(key_path(place), line, error.message))
            else:
                required += ((place, column) for column in sorted(template.required_columns))
        if parts and not problems:
            problems += unprinted([text for _, text in own], places)
        named = (*required, *task.columns_named())
        return cls(
            problems=tuple(problems), required_columns=tuple((key_path(place), column) for place, column in named)
        )
