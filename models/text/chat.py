"""Chat templates: a list of messages to the prompt a model was trained on, in the sandbox.

The environment is that of transformers (trimmed blocks, `break` and `continue`, `raise_exception`, `tojson` that does
not escape, tools, documents, `{% generation %}`, fields that are null left out), with two differences:

- Printing a value that is undefined is an error, where transformers prints nothing, for it is a message without content
  or a misspelt name. Testing one is not: published templates ask `if message.tool_calls` of messages that have none.
  Nor is printing a special token that the tokenizer does not have, or a field that the message gives as null.
- The date is passed in. Without one `strftime_now` is undefined, as templates that ask whether it is defined expect.
"""

import datetime as dt
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import Undefined, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.utils import missing

from models.errors import TemplateError
from models.templates.sandbox import BudgetedEnvironment
from models.text.tokenizer_files import DEFAULT_TEMPLATE, SPECIAL_TOKEN_NAMES

_TOOLS_TEMPLATE = "tool_use"
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
# Ends the text that is to be continued, with a blank that tells whether the template trims.
_END_MARK = "\ufdd0continued\ufdd1 "
# What a template, or what it calls, can raise because of what it was given.
_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChatTemplates:
    """The chat templates of one checkpoint: the default, and perhaps one for messages with tools.

    Each is compiled when it is first used.
    """

    def __init__(self, templates: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._sources, self._special_tokens = templates, special_tokens
        self._environment = _environment()
        self._compiled: dict[str, jinja2.Template] = {}
        self._lock = threading.Lock()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        now: dt.datetime | None,
        variables: Mapping[str, Any],
        continue_final_message: bool = False,
    ) -> str:
        """The prompt. `variables` are those a template may know besides, such as `enable_thinking`; `now` is what
        `strftime_now` tells. `continue_final_message` ends it with the last message's text, not with what ends a turn.

        Raises:
            TemplateError: there is no template, it is broken, it refuses these messages, or it goes over its limits.
        """
        name = _TOOLS_TEMPLATE if tools is not None and _TOOLS_TEMPLATE in self._sources else DEFAULT_TEMPLATE
        with self._lock:
            template = self._template(name)
            try:
                chat = _conversation(messages)
                if continue_final_message:
                    if add_generation_prompt:
                        raise ValueError(
                            "a message that is continued takes no generation prompt; ask for one of the two"
                        )
                    tail = _mark_end(chat)
                values = {
                    **self._special_tokens,
                    "documents": None,
                    **_plain(variables),
                    "messages": chat,
                    "tools": _plain(tools),
                    "add_generation_prompt": add_generation_prompt,
                }
                if now is not None:
                    values["strftime_now"] = now.strftime
                prompt = self._environment.render_within_budget(template, values)
                return _cut_at_end(prompt, tail) if continue_final_message else prompt
            except _FAILURES as error:
                raise TemplateError(f"the chat template failed{_template_line(error)}: {_message(error)}") from error

    def _template(self, name: str) -> jinja2.Template:
        if name not in self._sources:
            has = f"only {', '.join(sorted(self._sources))}" if self._sources else "none"
            raise TemplateError(
                f"the checkpoint has no {name} chat template ({has}); "
                "use a chat model, or give prompts instead of messages"
            )
        if name not in self._compiled:
            try:
                self._compiled[name] = self._environment.compile_guarded(self._sources[name])
            except (jinja2.TemplateError, RecursionError) as error:
                raise TemplateError(f"the {name} chat template is broken: {_message(error)}") from error
        return self._compiled[name]


class _ChatUndefined(Undefined):
    """Can be tested, compared and looped over (it is empty), but not printed."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, _Message):
            return f"a message has no {self._undefined_name!r}"
        return super()._undefined_message

    def __str__(self) -> str:
        of, name = self._undefined_obj, self._undefined_name
        if of is missing and name in SPECIAL_TOKEN_NAMES:
            return ""
        if isinstance(of, _Message) and name in of._nulls:
            return ""
        return self._fail_with_undefined_error()


class _Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; for us it is its content."""

    tags = {"generation"}  # noqa: RUF012  jinja2's declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _environment() -> BudgetedEnvironment:
    environment = BudgetedEnvironment(
        filters={"tojson": _to_json},
        undefined=_ChatUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, LoopControlExtension],
    )
    environment.globals |= {"raise_exception": _raise_exception, "dict": _new_dict, "namespace": _Namespace}
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict` without its methods, which would change a message that is passed to them."""
    return dict(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """Refuses names that Python's internals have, as transformers does."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace holds no name with an underscore before it; {name!r} was given"
        )


def _plain(value: Any) -> Any:
    """The same value built of plain types only: templates can call methods, and not all objects' are harmless."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_plain(item) for item in value]
    for base in (str, bool, int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"messages hold text, numbers, lists and objects; {type(value).__name__} was given")


class _Message(dict[str, Any]):
    """A message without the fields that it gives as null. Those are remembered: they may be printed, as nothing.

    The sandbox keeps templates from attributes that begin with an underscore.
    """

    __slots__ = ("_nulls",)

    def __init__(self, fields: Mapping[str, Any], nulls: frozenset[str]) -> None:
        super().__init__(fields)
        self._nulls = nulls


def _conversation(messages: Sequence[Mapping[str, Any]]) -> list[_Message]:
    """The messages as templates see them: plain values, and reasoning under its standard name, whichever it came under."""
    if not messages:
        raise ValueError("there are no messages; give at least one")
    return [_message_of(_plain(message)) for message in messages]


def _message_of(message: Any) -> _Message:
    if not isinstance(message, dict):
        raise TypeError(f"a message is an object with role and content; {type(message).__name__} was given")
    fields = {name: value for name, value in message.items() if value is not None}
    reasoning = next((fields[name] for name in _REASONING_NAMES if name in fields), None)
    if reasoning is not None:
        fields = {"thinking": reasoning, **fields, "reasoning_content": reasoning}
    return _Message(fields, frozenset(message.keys() - fields.keys()))


# Continuing the last message: its text is marked before rendering, and the prompt is cut at the mark, as transformers does.


def _mark_end(chat: list[_Message]) -> str:
    """Marks the end of the last message's text, the last part's where it is a list of parts; returns the text."""
    holder: dict[str, Any] = chat[-1]
    field, content = "content", holder.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        holder, field = (parts[-1], "text") if parts else (holder, "content")
    text = holder.get(field)
    if not isinstance(text, str):
        raise TypeError("the last message has no text to go on with")
    holder[field] = text + _END_MARK
    return text


def _cut_at_end(prompt: str, text: str) -> str:
    """The prompt up to the mark, without the blanks before it where the template trims them."""
    end = prompt.rfind(_END_MARK.strip())
    if end < 0 or text.strip() not in prompt:
        raise ValueError("the chat template changes the last message's text, so that it cannot be continued")
    return prompt[:end] if prompt.startswith(_END_MARK, end) else prompt[:end].rstrip()


def _template_line(error: BaseException) -> str:
    """The innermost line of the template that the error came through."""
    line, frame = 0, error.__traceback__
    while frame is not None:
        line = frame.tb_lineno if frame.tb_frame.f_code.co_filename == "<template>" else line
        frame = frame.tb_next
    return f" at its line {line}" if line else ""


def _message(error: BaseException) -> str:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.message} at its line {error.lineno}"
    if isinstance(error, RecursionError):
        return "it calls itself without end, or is nested too deep"
    text = str(error) or type(error).__name__
    return f"{text}; pass the date of the run as now" if text == "'strftime_now' is undefined" else text
