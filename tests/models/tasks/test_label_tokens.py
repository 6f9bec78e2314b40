"""Labels' tokens are those that prompt and label have together."""

from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import RequestError
from models.tasks import label_tokens
from models.tasks.label_tokens import (
    LabelTokens,
    fault_of_labels,
    num_computed,
    one_begins_another,
    prompt_tokens,
    stop_tokens,
)
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_tokenizers import KINDS, qwen
from tests.helpers.models.token_lists import common_prefix
from tests.helpers.pipelines.making import word_tokenizer

PIECES = [
    "Topic:",
    "Topic: ",
    "\n",
    "\n\n",
    " ",
    "a",
    "hello",
    "7",
    "日本",
    "\u0301",
    "😀",
    "'s",
    ".",
    "<|im_end|>",
    "</s>",
]
text = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=KINDS, scope="module")
def tokenizer(request: pytest.FixtureRequest, tokenizer_folder: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer.from_pretrained(tokenizer_folder(request.param))


@MANY
@given(prompts=st.lists(text, min_size=1, max_size=4), labels=st.lists(text, min_size=2, max_size=5, unique=True))
def test_prompt_and_label_are_the_tokens_of_both_together(
    tokenizer: Tokenizer, prompts: list[str], labels: list[str]
) -> None:
    """Also behind the second prompt and the third, for which the ends of those before are known."""
    tokens = LabelTokens(tokenizer, labels, stop=(), stops="never")
    for prompt in prompts:
        wholes = [tokenizer.encode(prompt + label, add_special_tokens=False) for label in labels]
        alone = tokenizer.encode(prompt, add_special_tokens=False)
        common = common_prefix([alone, *wholes])
        if not common:
            with pytest.raises(RequestError, match="no token before the labels"):
                tokens.behind(prompt, alone)
            continue
        scored = tokens.behind(prompt, alone)
        assert scored.prompt == common
        assert [[*scored.prompt, *ids] for ids in scored.labels] == wholes


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen")
    qwen(folder)
    return Tokenizer.from_pretrained(folder)


def test_a_space_at_the_end_of_a_prompt_belongs_to_the_labels(bpe: Tokenizer) -> None:
    """As in GPT-2's split a space goes with the word behind it."""
    labels = ("hello", "world")
    with_space = LabelTokens(bpe, labels, stop=()).behind("Topic: ", bpe.encode("Topic: "))
    without = LabelTokens(bpe, [f" {label}" for label in labels], stop=()).behind("Topic:", bpe.encode("Topic:"))
    assert with_space == without
    assert with_space.prompt == bpe.encode("Topic:")


def test_a_label_that_joins_the_last_word_has_all_labels_begin_there(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path)
    scored = LabelTokens(tokenizer, ["0", " w7"], stop=()).behind("w5 w1", tokenizer.encode("w5 w1"))
    w5, w1, w10, w7 = (tokenizer.encode(word)[0] for word in ("w5", "w1", "w10", "w7"))
    assert scored.prompt == [w5]
    assert scored.labels == ((w10,), (w1, w7))


def test_ends_of_prompts_are_looked_at_once(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = LabelTokens(bpe, [" a", " b"], stop=())
    asked: list[str] = []
    encode_continued = bpe.encode_continued

    def counted(prompt: str, texts: Sequence[str], max_chars: int | None = None) -> object:
        asked.append(prompt)
        return encode_continued(prompt, texts, max_chars=max_chars)

    monkeypatch.setattr(bpe, "encode_continued", counted)
    for number in range(10):
        prompt = f"Text: {number}\nTopic:"
        tokens.behind(prompt, bpe.encode(prompt))
    assert asked == ["Text: 0\nTopic:"]
    for number in range(3 * label_tokens.KEPT_ENDS):
        prompt = f"hello {number}x"
        tokens.behind(prompt, bpe.encode(prompt))
    assert len(tokens._known) <= label_tokens.KEPT_ENDS


def test_the_stop_token_follows_where_one_label_begins_another(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path)
    prompt = ("w0", tokenizer.encode("w0"))

    def labels(texts: Sequence[str], stops: label_tokens.Stops) -> label_tokens.LabelIds:
        return LabelTokens(tokenizer, texts, stop=(3,), stops=stops).behind(*prompt).labels

    assert labels([" w1", " w2"], "where needed") == ((5,), (6,))
    assert labels([" w1", " w1 w2"], "where needed") == ((5, 3), (5, 6, 3))
    assert labels([" w1", " w1 w2"], "never") == ((5,), (5, 6))
    assert labels([" w1", " w2"], "always") == ((5, 3), (6, 3))


def test_a_key_says_where_the_stop_token_follows(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path)
    one_begins_the_other, apart = ((5,), (5, 6)), ((5,), (6,))

    def labels(label_stop: bool | None, *texts: str) -> label_tokens.LabelIds:
        tokens = LabelTokens.asked(tokenizer, texts, label_stop=label_stop, eos_token_ids=(3,), is_chat=False)
        return tokens.behind("w0", tokenizer.encode("w0")).labels

    assert labels(None, " w1", " w1 w2") == labels(True, " w1", " w1 w2") == ((5, 3), (5, 6, 3))
    assert labels(None, " w1", " w2") == apart
    assert labels(False, " w1", " w1 w2") == one_begins_the_other


def test_labels_behind_prompts_that_end_differently_are_bounded_together(bpe: Tokenizer) -> None:
    """Those that end alike cost nothing more."""
    tokens = LabelTokens(bpe, [" label" * 10, " other"], stop=(), max_chars=1000)
    alike = [f"{number} Topic:" for number in range(100)]
    for prompt, ids in zip(alike, prompt_tokens(bpe, alike), strict=True):
        tokens.behind(prompt, ids)
    differently = [f"{number} {'x' * number}:" for number in range(100)]
    pairs = list(zip(differently, prompt_tokens(bpe, differently), strict=True))
    with pytest.raises(RequestError, match=r"2 labels behind prompts that end differently are .* at most 1000 are"):
        list(starmap(tokens.behind, pairs))


def test_the_last_token_of_a_label_is_not_computed() -> None:
    assert num_computed(((1,), (2,))) == 0
    assert num_computed(((1, 2, 3), (4,), (5, 6))) == 3


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple), min_size=2, max_size=6))
def test_one_begins_another_as_every_pair_tells(labels: list[tuple[int, ...]]) -> None:
    expected = any(one != other and other[: len(one)] == one for one in labels for other in labels)
    assert one_begins_another(tuple(labels)) == expected


def test_labels_that_cannot_be_told_apart_are_a_fault() -> None:
    assert fault_of_labels(("a", "b"), ((1,), (2,))) is None
    assert fault_of_labels(("a", "a"), ((1,), (1,))) == "a label can stand there only once"
    assert "can tell from the others'" in (fault_of_labels(("a", "b"), ((1,), (1,))) or "")
    assert "can tell from the others'" in (fault_of_labels(("a", "b"), ((1,), ())) or "")


def test_a_prompt_begins_as_a_text_and_ends_open(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path, has_frame=True)
    assert prompt_tokens(tokenizer, ["w1 w2", "w3"]) == [[1, 5, 6], [1, 7]]


def test_a_chat_model_stops_with_the_token_its_template_writes(bpe: Tokenizer) -> None:
    end_of_turn, end_of_text = (bpe.encode(name)[0] for name in ("<|im_end|>", "<|endoftext|>"))
    assert stop_tokens(bpe, (end_of_text, end_of_turn), is_chat=True) == (end_of_turn,)


def test_a_model_without_a_stop_token_has_none(tmp_path: Path) -> None:
    assert stop_tokens(word_tokenizer(tmp_path, eos_token=None), (), is_chat=False) == ()
