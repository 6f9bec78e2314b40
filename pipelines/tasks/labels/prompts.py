"""The text after which a label stands, in the three ways that a task has it: the built-in prompt, one of its own, messages.

Each makes its own of a row (its content), and puts the contents of examples, with what is written as their labels, before it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from models.errors import TemplateError
from models.tasks.label_prompt import LabelledText, LabelPrompt
from models.text.tokenizer import Tokenizer
from pipelines.errors import TaskError
from pipelines.task_base.requests import Row
from pipelines.tasks.messages import Messages, MessageTemplates
from pipelines.templates.templates import RowTemplate

Content = TypeVar("Content")

MakeTemplate = Callable[[str, str], RowTemplate]
"""Compiles a template, from its source and its place."""

BETWEEN_EXAMPLES = "\n\n"

_EXPRESSIONS: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
"""What of a template is not text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot(Generic[Content]):
    """An example: its content, and what is written as its label."""

    content: Content
    label: str


class LabelPrompts(Protocol[Content]):
    """How a task's prompts are made. `adds_special_tokens` says whether they are encoded with special tokens, `ends_alike`
    whether all of them end as `sample` does, which is a prompt as a row could have it."""

    adds_special_tokens: ClassVar[bool]
    ends_alike: ClassVar[bool]
    sample: str

    def of(self, row: Row) -> Content:
        """The content of a row.

        Raises:
            RowError: a template failed.
        """
        ...

    def of_example(self, example: Mapping[str, str]) -> Content:
        """The content of an example, which has the columns that are needed."""
        ...

    def words(self, content: Content) -> str:
        """The text that it is about, by whose words examples are chosen."""
        ...

    def text(self, content: Content, shots: Sequence[Shot[Content]]) -> str:
        """The prompt.

        Raises:
            TemplateError: the chat template failed.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedText:
    """A text, and what is asked of it."""

    text: str
    question: str | None = None


class TextPrompts(LabelPrompts[AskedText]):
    """The built-in prompt."""

    adds_special_tokens = True
    ends_alike = True

    def __init__(self, prompt: LabelPrompt, text: str, question: str | None, template: MakeTemplate) -> None:
        self._prompt = prompt
        self.text_template = template(text, "task.text")
        self._question = None if question is None else template(question, "task.question")
        self.sample = prompt.of("A text.", None if question is None else "Which?")

    def of(self, row: Row) -> AskedText:
        question = None if self._question is None else self._question.render(row)
        return AskedText(text=self.text_template.render(row), question=question)

    def of_example(self, example: Mapping[str, str]) -> AskedText:
        return AskedText(text=example["text"])

    def words(self, content: AskedText) -> str:
        return content.text

    def text(self, content: AskedText, shots: Sequence[Shot[AskedText]]) -> str:
        examples = [LabelledText(text=shot.content.text, label=shot.label) for shot in shots]
        return self._prompt.of(content.text, content.question, examples)


class OwnPrompts(LabelPrompts[str]):
    """A template of the task's own. Its text alone is the sample: most end in it as their rows do."""

    adds_special_tokens = True
    ends_alike = False

    def __init__(self, prompt: str, template: MakeTemplate) -> None:
        self.sample = _EXPRESSIONS.sub("", prompt)
        self._template = template(prompt, "task.prompt")

    def of(self, row: Row) -> str:
        return self._template.render(row)

    def of_example(self, example: Mapping[str, str]) -> str:
        return self._template.render(example)

    def words(self, content: str) -> str:
        return content

    def text(self, content: str, shots: Sequence[Shot[str]]) -> str:
        return "".join(f"{shot.content}{shot.label}{BETWEEN_EXAMPLES}" for shot in shots) + content


class ChatPrompts(LabelPrompts[list[Any]]):
    """Messages of the task's own, through the checkpoint's chat template. An example's messages, but for those of the system,
    stand behind the system's, and its label is what the assistant has said to them."""

    adds_special_tokens = False
    ends_alike = False

    def __init__(
        self, messages: Messages, variables: Mapping[str, Any], tokenizer: Tokenizer, template: MakeTemplate
    ) -> None:
        self._templates = MessageTemplates(messages, variables, tokenizer, template)
        written = [{**message, "role": "user"} if "{" in message["role"] else message for message in messages]
        try:
            self.sample = self._templates.prompt(written)
        except TemplateError as error:
            raise TaskError("task.messages", str(error)) from error

    def of(self, row: Row) -> list[Any]:
        return self._templates.of(row)

    def of_example(self, example: Mapping[str, str]) -> list[Any]:
        return self._templates.of(example)

    def words(self, content: list[Any]) -> str:
        return "\n".join(_text_of(message["content"]) for message in content)

    def text(self, content: list[Any], shots: Sequence[Shot[list[Any]]]) -> str:
        num_system = next((place for place, message in enumerate(content) if message["role"] != "system"), 0)
        told: list[Any] = []
        for shot in shots:
            asked = [message for message in shot.content if message["role"] != "system"]
            told += [*asked, {"role": "assistant", "content": shot.label}]
        return self._templates.prompt([*content[:num_system], *told, *content[num_system:]])


def _text_of(content: str | Sequence[Mapping[str, str]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
