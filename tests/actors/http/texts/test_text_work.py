"""Conversations of requests in the form that the model's chat template takes."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.http.texts.text_work import encode_documents, encode_messages, encode_question
from models.errors import RequestError, TemplateError
from models.tasks.document import Document
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_tokenizers import KINDS, qwen
from tests.helpers.pipelines.making import word_tokenizer

PARTS = [{"type": "text", "text": "w1 "}, {"type": "text", "text": "w2"}]
PIECES = ["hello ", "w1", " ", "\n", "é", "e\u0301", "日本", "😀", "<|im_end|>", "</s>", "<mask>", "[SEP]", "\ufdd0"]
texts = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=6
).map("".join)
NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it works, the tokenizer is told to use one core."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="module")
def tokenizer_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    return lambda template: word_tokenizer(tmp_path_factory.mktemp("chat"), chat_template=template)


def encoded(tokenizer: Tokenizer, content: Any, **variables: Any) -> tuple[int, ...]:
    found = encode_messages(tokenizer, [{"role": "user", "content": content}], variables, True, NOW, 1 << 20)
    return tuple(found.tolist())


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
    cut = [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]
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
    with pytest.raises(TemplateError, match=said):
        encoded(tokenizer_with(template), content)


def test_a_requests_variables_do_not_decide_for_the_next(tokenizer_with: Callable[[str], Tokenizer]) -> None:
    template = "{% for m in messages %}{{ '' if hidden else m.content if m.content is string else '' }} w9{% endfor %}"
    tokenizer = tokenizer_with(template)
    encoded(tokenizer, PARTS, hidden=True)
    assert encoded(tokenizer, PARTS) == tuple(tokenizer.encode("w1 w2 w9", add_special_tokens=False))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=texts, bodies=st.lists(texts, min_size=1, max_size=3))
def test_a_question_asked_once_stands_around_every_text_as_around_each_alone(
    kind: str, tokenizer_folder: Callable[[str], Path], question: str, bodies: list[str]
) -> None:
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder(kind))
    around = encode_question(tokenizer, question)
    for body, found in zip(bodies, encode_documents(tokenizer, bodies, True), strict=True):
        alone = Document.of(tokenizer.encode_with_offsets([question], [body])[0], sequence=1)
        assert found.token_ids.tolist() == alone.token_ids.tolist()
        assert found.offsets.tolist() == alone.offsets.tolist()
        if alone.num_tokens:
            assert (around.before.tolist(), around.after.tolist()) == (alone.before.tolist(), alone.after.tolist())


def test_a_prompt_that_a_template_makes_long_is_not_tokenized(tokenizer_with: Callable[[str], Tokenizer]) -> None:
    tokenizer = tokenizer_with("{{ 'w1 ' * 1000 }}{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(RequestError, match="the prompt has 3002 characters; at most 3000 are possible"):
        encode_messages(tokenizer, [{"role": "user", "content": "w2"}], {}, True, NOW, 3000)
