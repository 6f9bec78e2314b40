"""The content of chat messages in the form that a chat template takes, found out by rendering a probe.

OpenAI's messages have a text or a list of parts as their content. Many published templates take only a text, and make nothing of a
list, or Python's notation of it; a few take only a list. Rendering says nothing of what is lost so: jobs and the HTTP side ask here first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from models.errors import TemplateError

Message = Mapping[str, Any]

_PROBE = "millraceprobe"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatContent:
    """Whether what a user says comes through a template: as a text, and as a list of parts."""

    takes_text: bool
    takes_parts: bool

    @classmethod
    def of(cls, render: Callable[[list[Message]], str]) -> Self:
        """What the template behind `render` takes. One that refuses a lone message of a user is taken to want texts, as most do."""
        as_text = _rendered(render, _PROBE)
        as_parts = _rendered(render, [{"type": "text", "text": _PROBE}])
        return cls(
            takes_text=as_text is None or _PROBE in as_text.casefold(),
            takes_parts=as_parts is not None and _PROBE in as_parts.casefold() and not _is_notation(as_parts),
        )

    def fault(self, message: Message) -> str | None:
        """Why what a message says would be lost; None if it is not. Only users' messages are looked at: others may be left out."""
        content = message.get("content")
        if message.get("role") != "user" or not content or self.takes_text:
            return None
        if self.takes_parts:
            if not isinstance(content, str):
                return None
            return "the chat template takes lists of parts only: write the content as [{type: text, text: ...}]"
        return (
            "the chat template leaves out what users say: their messages come out empty; give a checkpoint with another template "
            "(chat_template.jinja), or a prompt in place of messages"
        )

    def fit(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with their parts joined to one text, where the template does not take parts.

        Raises:
            TemplateError: a part is not text, or what a user says would be lost.
        """
        for message in messages:
            if fault := self.fault(message):
                raise TemplateError(fault)
        return [message if self.takes_parts else _joined(message) for message in messages]


def _rendered(render: Callable[[list[Message]], str], content: object) -> str | None:
    """The prompt of a lone message, None if the template refuses it."""
    try:
        return render([{"role": "user", "content": content}])
    except TemplateError:
        return None


def _is_notation(prompt: str) -> bool:
    """Whether the list itself was printed, as Python or JSON writes it."""
    return any(f"{quote}text{quote}:" in prompt.casefold() for quote in "'\"")


def _joined(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
    return {**message, "content": "".join(map(_text_of, content))}


def _text_of(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise TemplateError(
        f"the chat template takes texts only, to which a part of the type {kind!r} cannot be joined; give parts of the type 'text'"
    )
