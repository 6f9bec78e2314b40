"""Chat templates: a list of messages to the prompt a model was trained on, in the sandbox.

The environment is that of transformers (trimmed blocks, `break` and `continue`, `raise_exception`, `tojson` that does
not escape, tools, `{% generation %}`), with two differences:

- Printing a value that is undefined is an error, where transformers prints nothing, for it is a message without content
  or a misspelt name. Testing one is not: published templates ask `if message.tool_calls` of messages that have none.
  Nor is printing a special token that the tokenizer does not have.
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
from models.sandbox import BudgetedEnvironment
from models.tokenizer_files import DEFAULT_TEMPLATE, SPECIAL_TOKEN_NAMES

_TOOLS_TEMPLATE = "tool_use"
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
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
    ) -> str:
        """The prompt. `variables` are those a template may know besides, such as `enable_thinking`; `now` is what
        `strftime_now` tells.

        Raises:
            TemplateError: there is no template, it is broken, it refuses these messages, or it goes over its limits.
        """
        name = _TOOLS_TEMPLATE if tools is not None and _TOOLS_TEMPLATE in self._sources else DEFAULT_TEMPLATE
        with self._lock:
            template = self._template(name)
            try:
                values = {
                    **self._special_tokens,
                    "documents": None,
                    **_plain(variables),
                    "messages": [_with_reasoning(_plain(message)) for message in messages],
                    "tools": _plain(tools),
                    "add_generation_prompt": add_generation_prompt,
                }
                if now is not None:
                    values["strftime_now"] = now.strftime
                return self._environment.render_within_budget(template, values)
            except _FAILURES as error:
                raise TemplateError(f"the chat template failed{_place(error)}: {_message(error)}") from error

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

    def __str__(self) -> str:
        if self._undefined_obj is missing and self._undefined_name in SPECIAL_TOKEN_NAMES:
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
    environment.globals["raise_exception"] = _raise_exception
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


def _with_reasoning(message: Any) -> Any:
    """A message whose reasoning can be read under its standard name, whichever of its names it came under."""
    if not isinstance(message, dict):
        raise TypeError(f"a message is an object with role and content; {type(message).__name__} was given")
    reasoning = next((message[name] for name in _REASONING_NAMES if message.get(name) is not None), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _place(error: BaseException) -> str:
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
