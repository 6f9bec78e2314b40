"""Messages of a task as templates: rendered for a row, and put through the checkpoint's chat template.

The strings of messages, roles and nested content parts included, are templates each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.text.chat_content import ChatContent
from models.text.tokenizer import Tokenizer
from pipelines.errors import TaskError
from pipelines.task_base.requests import Row
from pipelines.templates.templates import RowTemplate

Messages = Sequence[Mapping[str, Any]]

# What chat templates get in another way.
_RESERVED = {"messages": "write task.messages", "now": "the date that templates see is the key date of the job"}
# Where a prompt ends, which does not change how messages are written.
_OF_THE_END = ("add_generation_prompt", "continue_final_message")


class MessageTemplates:
    """The messages of a task, over a checkpoint whose chat template is given `variables` too.

    Raises:
        TaskError: there is no chat template, a template cannot be used, or what a message says would be lost.
    """

    def __init__(
        self,
        messages: Messages,
        variables: Mapping[str, Any],
        tokenizer: Tokenizer,
        template: Callable[[str, str], RowTemplate],
    ) -> None:
        """`template` compiles one, from its source and its place."""
        if tokenizer.chat_template is None:
            raise TaskError("task.messages", "the checkpoint has no chat template; write a prompt instead")
        for name in _RESERVED.keys() & variables.keys():
            raise TaskError(f"task.chat_template_kwargs.{name}", f"is no variable of a template: {_RESERVED[name]}")
        self._tokenizer, self._variables, self._template = tokenizer, variables, template
        self._render = self._renderer(messages, "task.messages")
        self._content = self._fitting(messages)

    def of(self, row: Row) -> list[Any]:
        """The messages of a row."""
        messages: list[Any] = self._render(row)
        return messages

    def prompt(self, messages: Messages) -> str:
        """The text of rendered messages, after which the model answers; to be encoded without special tokens.

        Raises:
            TemplateError: the chat template failed.
        """
        return self._tokenizer.render_chat(self._content.fit(messages), **self._variables)

    def _fitting(self, messages: Messages) -> ChatContent:
        """The form of content that the chat template takes, which the messages have or can be given."""
        variables = {name: value for name, value in self._variables.items() if name not in _OF_THE_END}
        content = self._tokenizer.chat_content(**variables)
        for index, message in enumerate(messages):
            if fault := content.fault(message):
                raise TaskError(f"task.messages[{index}].content", fault)
        return content

    def _renderer(self, value: Any, place: str) -> Callable[[Row], Any]:
        """A function from a row to `value` with every string in it rendered."""
        if isinstance(value, str):
            return self._template(value, place).render
        if isinstance(value, Mapping):
            fields = {name: self._renderer(item, f"{place}.{name}") for name, item in value.items()}
            return lambda row: {name: render(row) for name, render in fields.items()}
        if isinstance(value, list | tuple):
            items = [self._renderer(item, f"{place}[{index}]") for index, item in enumerate(value)]
            return lambda row: [render(row) for render in items]
        return lambda _: value
