"""The text of a request while its tokens arrive: what is shown is never taken back, and ends before the first stop string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engine.text_tracker import TextTracker
from models.text.tokenizer import Tokenizer

TEXTS = st.text(alphabet="ab é😀", max_size=30)
STOPS = st.lists(st.text(alphabet="ab é😀", min_size=1, max_size=4), max_size=3)


def pushed(
    tokenizer: Tokenizer, token_ids: list[int], stop: list[str], *, min_tokens: int = 0
) -> tuple[TextTracker, list[str]]:
    """A tracker given one token at a time until it stops, and what it delivered."""
    tracker = TextTracker(tokenizer, stop)
    pieces: list[str] = []
    for number, token in enumerate(token_ids, 1):
        is_last = number == len(token_ids)
        pieces.append(tracker.push([token], is_last=is_last, may_stop=number >= min_tokens))
        if tracker.is_stopped:
            break
    return tracker, pieces


@settings(max_examples=300, deadline=None)
@given(text=TEXTS.filter(bool), stop=STOPS)
def test_text_that_is_shown_is_kept_and_holds_no_stop_string(tokenizer: Tokenizer, text: str, stop: list[str]) -> None:
    token_ids = tokenizer.encode(text)
    tracker, pieces = pushed(tokenizer, token_ids, stop)
    places = [place for place in map(text.find, stop) if place >= 0]
    assert "".join(pieces) == tracker.text
    assert tracker.is_stopped == bool(places)
    assert not any(each in tracker.text for each in stop)
    if len(stop) < 2:
        assert tracker.text == text[: min(places, default=None)]
    else:
        assert text.startswith(tracker.text)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS.filter(bool), stop=STOPS)
def test_what_comes_at_once_is_cut_at_the_first_stop_string_of_all(
    tokenizer: Tokenizer, text: str, stop: list[str]
) -> None:
    tracker = TextTracker(tokenizer, stop)
    tracker.push(tokenizer.encode(text), is_last=True, may_stop=True)
    assert tracker.text == text[: min((place for place in map(text.find, stop) if place >= 0), default=None)]


def test_nothing_that_may_become_a_stop_string_is_shown(tokenizer: Tokenizer) -> None:
    _, pieces = pushed(tokenizer, tokenizer.encode("xabababc"), ["ababc"])
    assert "".join(pieces) == "xab"
    shown = ["".join(pieces[:end]) for end in range(len(pieces) + 1)]
    assert all("xab".startswith(each) for each in shown)


def test_what_was_held_back_is_shown_when_it_becomes_no_stop_string(tokenizer: Tokenizer) -> None:
    tracker, pieces = pushed(tokenizer, tokenizer.encode("xababab"), ["ababc"])
    assert "".join(pieces) == tracker.text == "xababab"
    assert not tracker.is_stopped


@pytest.mark.parametrize(("min_tokens", "expected"), [(0, ""), (4, ""), (5, "a")])
def test_stop_strings_count_from_min_tokens_on(tokenizer: Tokenizer, min_tokens: int, expected: str) -> None:
    """Tokens a, b, b, b, b, b: the stop string bbb is complete with the fourth."""
    token_ids = [tokenizer.encode(letter)[0] for letter in "abbbbb"]
    tracker, _ = pushed(tokenizer, token_ids, ["abbb" if min_tokens < 5 else "bbb"], min_tokens=min_tokens)
    assert tracker.is_stopped
    assert tracker.text.startswith(expected)


def test_half_a_character_at_the_end_is_shown_as_the_tokenizer_decodes_it(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode("a😀")[:-1]
    tracker, pieces = pushed(tokenizer, token_ids, [])
    assert tracker.text == "".join(pieces) == tokenizer.decode(token_ids)
    assert "\ufffd" in tracker.text
