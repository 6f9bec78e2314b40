"""`parts` of a job spec before any row is seen: templates that can stand in any order, and a template that prints them."""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from jobs.errors import shown
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places
from pipelines.errors import TaskError
from pipelines.parts.template import PARTS, names_parts, prints_parts, without_parts
from pipelines.task_base.yaml import Text
from pipelines.templates.templates import RowTemplate

MAX_PARTS: Final = 12
PARTS_TEXT: Final = (
    f"a list of 2 to {MAX_PARTS} templates, none of them empty, such as "
    '["Shop: {{ shop }}", "Text: {{ body }}"]; they stand where a template prints {{ parts }}'
)
PartsYaml = Annotated[list[Text], Field(min_length=2, max_length=MAX_PARTS)]

_AT: Final[KeyPath] = (PARTS,)
_OWN_COLUMN: Final = 'a column of this name is row["parts"]'


def part_place(number: int) -> str:
    """Where a part stands."""
    return f"{PARTS}[{number}]"


def part_template(source: str, *, place: str) -> RowTemplate:
    """A part, compiled.

    Raises:
        TaskError: it is no template, or none that can be one of the parts.
    """
    part = RowTemplate(source, place=place)
    if names_parts(source):
        raise TaskError(place, f"is one of the parts, and cannot have parts in it; {_OWN_COLUMN}")
    if not part.columns and not part.reads_all:
        beside = "write it beside {{ parts }}, in the template that prints them"
        raise TaskError(
            place, f"was {shown(source)}, which names no column of the input and is the same in all rows; {beside}"
        )
    return part


def template_around_parts(source: str, *, place: str) -> RowTemplate:
    """A template of the task without the parts that it may print.

    Raises:
        TaskError: it is none, or does something else with the parts.
    """
    RowTemplate(source, place=place)
    around = without_parts(source)
    if names_parts(around):
        raise TaskError(
            place,
            "uses parts, which the spec has, in another way than {{ parts }}: they are printed with no filter or anything else around "
            f"them, and no variable has their name; {_OWN_COLUMN}",
        )
    return RowTemplate(around, place=place)


def unprinted(templates: Sequence[str], places: Places) -> list[str]:
    """The problem that none of the task's templates prints the parts, if that is so."""
    if any(map(prints_parts, templates)):
        return []
    text = 'no template of the task prints them; write {{ parts }} where they are to stand, such as prompt: "{{ parts }}\\nTopic:"'
    return [places.problem(_AT, text)]
