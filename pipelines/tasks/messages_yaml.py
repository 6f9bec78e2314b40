"""How specs write messages."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.task_base.change import Change, by_defaults
from pipelines.task_base.yaml import Strict, Text, wrong


def check_one_prompt(kind: str, forms: Sequence[str], given: Sequence[str]) -> None:
    """Raises a validation error unless one of the forms of a prompt is given."""
    allowed = f"exactly one of {', '.join(forms[:-1])} and {forms[-1]}"
    if not given:
        raise wrong("kind", f"{kind} needs {allowed}; none is given")
    if len(given) > 1:
        raise wrong(given[1], f"stands beside {given[0]}; give {allowed}")


def check_variables(variables: Mapping[str, Any], *, has_messages: bool) -> None:
    """Raises a validation error if variables of a chat template stand where none is used."""
    if variables and not has_messages:
        raise wrong("chat_template_kwargs", "only goes with messages: a prompt is not put through the chat template")


class PartYaml(Strict):
    """One part of a message's content."""

    changeable: ClassVar[Mapping[str, Change]] = {"text": by_defaults}

    type: Literal["text"] = Field(description="text")
    text: str = Field(description="a template over the row's columns")


class MessageYaml(Strict):
    """One message of a chat."""

    changeable: ClassVar[Mapping[str, Change]] = {"content": by_defaults}

    role: Text = Field(description="a role the checkpoint's chat template knows: system, user, assistant")
    content: str | list[PartYaml] = Field(
        description="a template over the row's columns, or a list of {type: text, text: template}"
    )


def plain_messages(messages: Sequence[MessageYaml] | None) -> tuple[dict[str, Any], ...] | None:
    """Messages as a task has them."""
    return None if messages is None else tuple(message.model_dump() for message in messages)
