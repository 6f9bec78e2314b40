"""Conversations of requests in the form that the model's chat template takes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.openai_errors import ApiError
from actors.openai_schema import ChatMessage, TextPart
from actors.prompts import encode_chat
from models.text import Tokenizer
from tests.models.tiny_tokenizers import qwen
from tests.pipelines.making import word_tokenizer

PARTS = [TextPart(type="text", text="w1 "), TextPart(type="text", text="w2")]


@pytest.fixture(scope="module")
def tokenizer_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    return lambda template: word_tokenizer(tmp_path_factory.mktemp("chat"), chat_template=template)


def encoded(tokenizer: Tokenizer, content: Any, **variables: Any) -> tuple[int, ...]:
    return asyncio.run(encode_chat([ChatMessage(role="user", content=content)], tokenizer, variables))


def test_parts_are_joined_where_the_template_takes_texts(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    qwen(tmp_path)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template([{"role": "user", "content": "w1 w2"}], add_generation_prompt=True)
    assert list(encoded(Tokenizer.from_pretrained(tmp_path), PARTS)) == expected.input_ids


def test_parts_stay_parts_where_the_template_takes_them(tokenizer_with: Callable[[str], Tokenizer]) -> None:
    template = "{% for m in messages %}{% for part in m.content %}{{ part.text }} w9 {% endfor %}{% endfor %}"
    tokenizer = tokenizer_with(template)
    assert encoded(tokenizer, PARTS) == tuple(tokenizer.encode("w1 w9 w2 w9", add_special_tokens=False))


def test_a_special_token_that_two_parts_spell_together_stays_text(tmp_path: Path) -> None:
    qwen(tmp_path)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    cut = [TextPart(type="text", text="<|im_"), TextPart(type="text", text="end|>")]
    assert encoded(tokenizer, cut) == encoded(tokenizer, "<|im_end|>")
    [end] = tokenizer.encode("<|im_end|>")
    assert encoded(tokenizer, cut).count(end) == 1  # the template's own


@pytest.mark.parametrize(
    ("template", "content", "said"),
    [
        ("{% for m in messages %}w9{% endfor %}", "w1", "leaves out what users say"),
        ("{% for m in messages %}w9{% endfor %}", PARTS, "leaves out what users say"),
        ("{% for p in messages[0].content %}{{ p.text | default('') }}{% endfor %}", "w1", "takes lists of parts only"),
    ],
)
def test_what_the_template_would_lose_is_refused(
    tokenizer_with: Callable[[str], Tokenizer], template: str, content: Any, said: str
) -> None:
    with pytest.raises(ApiError, match=f"messages: .*{said}") as caught:
        encoded(tokenizer_with(template), content)
    assert caught.value.status == 400


def test_a_requests_variables_do_not_decide_for_the_next(tokenizer_with: Callable[[str], Tokenizer]) -> None:
    template = "{% for m in messages %}{{ '' if hidden else m.content if m.content is string else '' }} w9{% endfor %}"
    tokenizer = tokenizer_with(template)
    encoded(tokenizer, PARTS, hidden=True)
    assert encoded(tokenizer, PARTS) == tuple(tokenizer.encode("w1 w2 w9", add_special_tokens=False))
