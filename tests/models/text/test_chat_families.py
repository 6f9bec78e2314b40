"""What the published templates of the five families do, rendered as transformers renders it.

The files in `chat_templates/` are written for these tests and do what the public ones do: dates, flags in the system message, tools as
JSON, XML and Python, reasoning that is split off, merged tool responses, macros, documents, generation blocks, alternating roles.
"""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.errors import TemplateError
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_tokenizers import CHAT_TEMPLATE, change_config

FOLDER = Path(__file__).parents[1] / "chat_templates"
TEMPLATES = {"qwen3": CHAT_TEMPLATE} | {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.jinja"))}
NOW = dt.datetime(2024, 2, 9, tzinfo=dt.UTC)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": " The weather of a city; <b>é</b> & 'quotes' \n",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Zürich", "enum": ["Zürich", "Bern"]},
                "days": {"type": ["integer", "null"], "default": None, "minimum": 1.5},
            },
            "required": ["city"],
        },
    },
}
BARE_TOOL = {"name": "noop", "description": "Does nothing", "parameters": {}}
USER = {"role": "user", "content": "How is the weather?\nIn Zürich. "}
IN_PARTS = {"role": "user", "content": [{"type": "text", "text": "How is"}, {"type": "text", "text": " the weather?"}]}
ANSWER = {"role": "assistant", "content": "\nSunny 😀."}
THOUGHT = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nSunny."}
REASONED = {"role": "assistant", "content": "Sunny.", "reasoning_content": "\nLet me see.\n"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}},
        },
        {
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Bern", "more": {"a": [1, None]}}},
        },
    ],
}
RESULTS = [
    {"role": "tool", "tool_call_id": "1", "name": "get_weather", "content": '{"sun": true}'},
    {"role": "tool", "content": "rain"},
]
DOCUMENTS = [{"title": f"T{number}", "text": f" text {number} "} for number in range(3)]


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "question": {"messages": [USER]},
    "no prompt": {"messages": [USER, ANSWER], "add_generation_prompt": False},
    "system": {"messages": [system("Be brief."), USER]},
    "empty system": {"messages": [system(""), USER]},
    "no_think flag": {"messages": [system("Be brief. /no_think"), USER, ANSWER, USER]},
    "think flag": {"messages": [system("/think"), USER], "enable_thinking": False},
    "override": {"messages": [system("Only this. /system_override"), USER]},
    "thinking off": {"messages": [USER, ANSWER, USER], "enable_thinking": False},
    "thinking on": {"messages": [USER], "enable_thinking": True},
    "parts": {"messages": [IN_PARTS]},
    "parts of others": {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]},
    "thoughts": {"messages": [USER, THOUGHT, USER, REASONED]},
    "last thought": {"messages": [USER, REASONED], "add_generation_prompt": False},
    "thinking field": {"messages": [USER, {**ANSWER, "thinking": "hm", "reasoning_content": None}]},
    "tools": {"messages": [USER], "tools": [WEATHER]},
    "tools and system": {"messages": [system("Help."), USER], "tools": [WEATHER, BARE_TOOL]},
    "no tools": {"messages": [USER], "tools": []},
    "xml tools": {"messages": [USER], "xml_tools": [WEATHER]},
    "python tools": {"messages": [USER], "python_tools": ["def f(x: int) -> int: ..."]},
    "both tools": {"messages": [USER], "python_tools": ["def f(): ..."], "xml_tools": [BARE_TOOL]},
    "tools in the system message": {"messages": [{**system("Help."), "tools": json.dumps([BARE_TOOL])}, USER]},
    "no tools in the system message": {"messages": [{**system("Help."), "tools": None}, USER]},
    "calls": {"messages": [USER, CALL, *RESULTS], "tools": [WEATHER]},
    "calls answered": {"messages": [USER, CALL, *RESULTS, ANSWER, USER], "tools": [WEATHER]},
    "calls with text": {"messages": [USER, {**CALL, "content": "One moment."}, RESULTS[1], THOUGHT]},
    "documents": {"messages": [USER], "documents": DOCUMENTS},
    "one document": {"messages": [IN_PARTS, ANSWER], "documents": DOCUMENTS[:1], "add_generation_prompt": False},
    "date given": {"messages": [USER], "date_string": "yesterday"},
    "late system": {"messages": [USER, system("late")]},
    "odd role": {"messages": [{"role": "critic", "content": "x"}]},
    "two questions": {"messages": [USER, USER]},
    "a name": {"messages": [{**USER, "name": "Ann"}]},
    "token given": {"messages": [USER], "bos_token": "<start>", "eos_token": "<stop>"},
}


class Calendar:
    """Stands in for `datetime` in transformers."""

    @staticmethod
    def now() -> dt.datetime:
        return NOW


@pytest.fixture(scope="module")
def tokenizers_of(
    tokenizer_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Tokenizer, Any]]:
    """A function from the name of a template to our tokenizer and theirs with it."""
    from transformers import AutoTokenizer

    made: dict[str, tuple[Tokenizer, Any]] = {}

    def make(name: str) -> tuple[Tokenizer, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            shutil.copytree(tokenizer_folder("qwen"), folder, dirs_exist_ok=True)
            change_config(folder, chat_template=..., bos_token="<|endoftext|>" if name == "helium" else None)
            (folder / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")
            made[name] = Tokenizer.from_pretrained(folder, now=NOW), AutoTokenizer.from_pretrained(folder)
        return made[name]

    return make


@pytest.fixture(autouse=True)
def _fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat_template_utils, "datetime", Calendar)


def outcome(render: Callable[[], str]) -> str | None:
    """The prompt, None if the template refuses or cannot take the messages."""
    import jinja2

    try:
        return render()
    except (TemplateError, jinja2.TemplateError, TypeError, ValueError):
        return None


@pytest.mark.parametrize("given", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_published_kinds_of_templates_render_as_in_transformers(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]], name: str, given: dict[str, Any]
) -> None:
    ours, theirs = tokenizers_of(name)
    given = {"add_generation_prompt": True} | given
    rest = {key: value for key, value in given.items() if key != "messages"}
    expected = outcome(lambda: str(theirs.apply_chat_template(given["messages"], tokenize=False, **rest)))
    assert outcome(lambda: ours.render_chat(**given)) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_most_conversations_can_be_rendered(tokenizers_of: Callable[[str], tuple[Tokenizer, Any]], name: str) -> None:
    ours, _ = tokenizers_of(name)
    prompts = {case: outcome(partial(ours.render_chat, **given)) for case, given in CONVERSATIONS.items()}
    assert all(prompts[case] for case in ("question", "no prompt", "token given"))
    assert sum(prompt is not None for prompt in prompts.values()) >= len(prompts) // 2


def test_the_date_is_the_tokenizers_own_or_the_one_given(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]],
) -> None:
    ours, _ = tokenizers_of("smollm3")
    assert "Today Date: 09 February 2024\n" in ours.render_chat([USER])
    other = dt.datetime(2025, 12, 31, tzinfo=dt.UTC)
    assert "Today Date: 31 December 2025\n" in ours.render_chat([USER], now=other)


CONTINUED: list[list[dict[str, Any]]] = [
    [USER, {"role": "assistant", "content": "The answer is:"}],
    [USER, {"role": "assistant", "content": "The answer is: "}],
    [USER, {"role": "assistant", "content": '{"label": "'}],
    [USER, ANSWER],
    [USER, {"role": "assistant", "content": ""}],
    [USER, {"role": "assistant"}],
    [USER],
]


@pytest.mark.parametrize("messages", CONTINUED)
@pytest.mark.parametrize("name", ["qwen3", "qwen3_parts", "smollm3", "phi3", "phi4", "zamba2", "helium", "documents"])
def test_a_final_message_is_continued_as_in_transformers(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]], name: str, messages: list[dict[str, Any]]
) -> None:
    ours, theirs = tokenizers_of(name)
    expected = outcome(lambda: str(theirs.apply_chat_template(messages, tokenize=False, continue_final_message=True)))
    assert outcome(lambda: ours.render_chat(messages, continue_final_message=True)) == expected


@pytest.mark.parametrize("name", ["qwen3_parts", "documents"])
def test_a_final_message_in_parts_is_continued_as_in_transformers(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]], name: str
) -> None:
    ours, theirs = tokenizers_of(name)
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two "}]
    messages: list[dict[str, Any]] = [USER, {"role": "assistant", "content": parts}]
    prompt = ours.render_chat(messages, continue_final_message=True)
    assert prompt == theirs.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert prompt.rstrip().endswith("two")


def test_parts_that_a_template_prints_as_python_cannot_be_continued(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]],
) -> None:
    ours, _ = tokenizers_of("helium")
    with pytest.raises(TemplateError, match="changes the last message's text"):
        ours.render_chat([USER, {**IN_PARTS, "role": "assistant"}], continue_final_message=True)


def test_a_continued_message_takes_no_generation_prompt(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]],
) -> None:
    ours, _ = tokenizers_of("zamba2")
    with pytest.raises(TemplateError, match="takes no generation prompt"):
        ours.render_chat([USER], continue_final_message=True, add_generation_prompt=True)


def test_a_message_that_the_template_drops_cannot_be_continued(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]],
) -> None:
    ours, _ = tokenizers_of("phi3")
    with pytest.raises(TemplateError, match="changes the last message's text"):
        ours.render_chat([USER, {"role": "tool", "content": "x"}], continue_final_message=True)


# Fields that are null, and messages that are missing.


def test_a_field_given_as_null_is_left_out_and_prints_as_nothing(
    tokenizers_of: Callable[[str], tuple[Tokenizer, Any]],
) -> None:
    from models.text.chat import ChatTemplates

    _, theirs = tokenizers_of("zamba2")
    template = "{{ messages[0] | tojson }}{{ messages[0].content }}{{ 'name' in messages[0] }}{{ messages[0].content is defined }}"
    messages = [{"role": "assistant", "content": None, "name": None, "thinking": None, "reasoning": "hm"}]
    ours = ChatTemplates({"default": template}, {}).render(
        messages, tools=None, add_generation_prompt=False, now=None, variables={}
    )
    assert ours == theirs.apply_chat_template(messages, chat_template=template, tokenize=False)


def test_a_chat_without_messages_is_refused(tokenizers_of: Callable[[str], tuple[Tokenizer, Any]]) -> None:
    ours, _ = tokenizers_of("zamba2")
    with pytest.raises(TemplateError, match="there are no messages; give at least one"):
        ours.render_chat([])


@pytest.mark.parametrize(
    "template",
    [
        "{{ dict.update(messages[0], role='x') }}",
        "{{ dict.pop(messages[0], 'role') }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ messages[0]._nulls }}",
        "{{ messages[0].__init__ }}",
    ],
)
def test_templates_cannot_reach_what_is_not_theirs(template: str) -> None:
    from models.text.chat import ChatTemplates

    with pytest.raises(TemplateError):
        ChatTemplates({"default": template}, {}).render(
            [USER], tools=None, add_generation_prompt=False, now=None, variables={}
        )
