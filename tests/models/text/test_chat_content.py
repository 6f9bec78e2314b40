"""Content in parts for templates of every kind, against what transformers renders."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from models.errors import TemplateError
from models.text.chat_content import ChatContent
from models.text.tokenizer import Tokenizer
from tests.models.text.test_chat_families import TEMPLATES, _fixed_date, outcome, tokenizers_of

__all__ = ["_fixed_date", "tokenizers_of"]

TOLD = ("How is", " the weather?")
IN_PARTS = [{"role": "user", "content": [{"type": "text", "text": text} for text in TOLD]}]
AS_TEXT = [{"role": "user", "content": "".join(TOLD)}]
ONLY_STRINGS = "{% for m in messages %}<{{ m.role }}>{{ m.content if m.content is string else '' }}{% endfor %}"
ONLY_PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is not string %}{% for part in m.content %}{{ part.text }}"
    "{% endfor %}{% endif %}{% endfor %}"
)
NOTHING = "{% for m in messages %}<{{ m.role }}>\n{% endfor %}"
TokenizersOf = Callable[[str], tuple[Tokenizer, Any]]


def content_of(theirs: Any, template: str) -> ChatContent:
    return ChatContent.of(lambda messages: render(theirs, template, messages))


def render(theirs: Any, template: str, messages: Any) -> str:
    prompt: str = theirs.apply_chat_template(messages, chat_template=template, tokenize=False)
    return prompt


@pytest.mark.parametrize("name", TEMPLATES)
def test_parts_give_the_prompt_that_their_text_gives(tokenizers_of: TokenizersOf, name: str) -> None:
    ours, theirs = tokenizers_of(name)
    prompt = ours.render_chat(ours.chat_content().fit(IN_PARTS))
    rest = {"tokenize": False, "add_generation_prompt": True}
    of_text, of_parts = (
        outcome(partial(theirs.apply_chat_template, messages, **rest)) for messages in (AS_TEXT, IN_PARTS)
    )
    tells_parts = of_parts is not None and all(text.strip() in of_parts for text in TOLD) and "'type'" not in of_parts
    assert prompt == (of_parts if tells_parts else of_text)
    assert all(text.strip() in prompt for text in TOLD)


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_stay_as_they_are(tokenizers_of: TokenizersOf, name: str) -> None:
    ours, _ = tokenizers_of(name)
    assert ours.chat_content().takes_text
    assert ours.chat_content().fit(AS_TEXT) == AS_TEXT


def test_the_published_kind_that_takes_only_strings_is_known(tokenizers_of: TokenizersOf) -> None:
    kinds = {name: tokenizers_of(name)[0].chat_content().takes_parts for name in TEMPLATES}
    assert kinds["qwen3"] is False
    assert kinds["qwen3_parts"] is True


def test_forms_are_told_apart_by_rendering(tokenizers_of: TokenizersOf) -> None:
    _, theirs = tokenizers_of("qwen3")
    both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}{% endfor %}"
    for template, takes_text, takes_parts in (
        (ONLY_STRINGS, True, False),
        (ONLY_PARTS, False, True),
        (both, True, True),
        (NOTHING, False, False),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", True, False),  # prints the list as Python does
        ("{% for m in messages %}{{ m.content | tojson }}{% endfor %}", True, False),
        ("{% for m in messages %}{{ (m.content | string).upper() }}{% endfor %}", True, False),
    ):
        content = content_of(theirs, template)
        assert (content.takes_text, content.takes_parts) == (takes_text, takes_parts), template


def test_what_a_template_would_lose_is_an_error(tokenizers_of: TokenizersOf) -> None:
    _, theirs = tokenizers_of("qwen3")
    with pytest.raises(TemplateError, match="leaves out what users say: their messages come out empty"):
        content_of(theirs, NOTHING).fit(AS_TEXT)
    with pytest.raises(TemplateError, match="leaves out what users say"):
        content_of(theirs, NOTHING).fit(IN_PARTS)
    with pytest.raises(TemplateError, match=r"takes lists of parts only: write the content as \[\{type: text"):
        content_of(theirs, ONLY_PARTS).fit(AS_TEXT)
    assert content_of(theirs, ONLY_PARTS).fit(IN_PARTS) == IN_PARTS
    empty = [{"role": "user", "content": ""}, {"role": "system", "content": "x"}]
    assert content_of(theirs, NOTHING).fit(empty) == empty


def test_a_part_that_is_no_text_is_never_dropped(tokenizers_of: TokenizersOf) -> None:
    ours, _ = tokenizers_of("qwen3")
    image = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]
    with pytest.raises(TemplateError, match="to which a part of the type 'image' cannot be joined"):
        ours.chat_content().fit(image)


def test_a_template_that_refuses_a_lone_question_is_taken_to_want_texts() -> None:
    def refuse(_: Any) -> str:
        raise TemplateError("a system message comes first")

    content = ChatContent.of(refuse)
    assert content.fit(IN_PARTS) == AS_TEXT


def test_variables_of_a_task_are_the_probes_too(tokenizers_of: TokenizersOf) -> None:
    ours, _ = tokenizers_of("qwen3")
    assert ours.chat_content(enable_thinking=False) == ours.chat_content() == ours.chat_content()
