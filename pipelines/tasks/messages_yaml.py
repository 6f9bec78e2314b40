"""How specs write messages."""

from typing import Literal

from pydantic import Field

from pipelines.task_base.yaml import Strict, Text


class PartYaml(Strict):
    """One part of a message's content."""

    type: Literal["text"] = Field(description="text")
    text: str = Field(description="a template over the row's columns")


class MessageYaml(Strict):
    """One message of a chat."""

    role: Text = Field(description="a role the checkpoint's chat template knows: system, user, assistant")
    content: str | list[PartYaml] = Field(
        description="a template over the row's columns, or a list of {type: text, text: template}"
    )
