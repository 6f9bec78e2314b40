"""Templates among the values of a task: where each stands, and the same values with other templates.

A value is one template, or messages, whose roles and contents are templates each.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_NO_TEMPLATE: Final = "type"
"""The key of a part of a message's content that says what the part is."""


def templates_in(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """The place of every template in a value that stands at `place`, such as `task.messages[0].content`, and the template."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name != _NO_TEMPLATE:
                yield from templates_in(item, f"{place}.{name}")
    elif value is not None:
        for index, item in enumerate(value):
            yield from templates_in(item, f"{place}[{index}]")


def with_templates_in(value: Any, change: Callable[[str], str]) -> Any:
    """The value with `change` of each of its templates in the place of that."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: item if name == _NO_TEMPLATE else with_templates_in(item, change) for name, item in value.items()}
    return None if value is None else type(value)(with_templates_in(item, change) for item in value)
