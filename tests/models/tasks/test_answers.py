import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tasks.answers import MAX_ANSWER_TOKENS, FloatArray, Int32Array, find_answer

# Two question tokens, then a text of one-letter words: text token i is at place i + 2 and at characters 2i to 2i + 1.
TEXT = " ".join("abcdefghij" * 20)


def window(
    starts: dict[int, float], ends: dict[int, float], *, first: int = 0, num_tokens: int = 10
) -> tuple[FloatArray, Int32Array]:
    """A window over text tokens `first` and on; logits are 0 but those given by text token (-2: the first question token)."""
    logits = np.zeros((num_tokens + 2, 2), np.float32)
    for column, values in enumerate((starts, ends)):
        for token, value in values.items():
            logits[token + 2 - (first if token >= 0 else 0), column] = value
    offsets = np.full((num_tokens + 2, 2), -1, np.int32)
    offsets[2:, 0] = 2 * np.arange(first, first + num_tokens)
    offsets[2:, 1] = offsets[2:, 0] + 1
    return logits, offsets


def test_the_likeliest_pair_is_the_answer() -> None:
    answer = find_answer([window({1: 5.0}, {3: 5.0})], TEXT)
    assert answer is not None
    assert (answer.start, answer.end, answer.text) == (2, 7, "b c d")


def test_the_end_is_never_before_the_start() -> None:
    answer = find_answer([window({5: 5.0}, {2: 6.0, 7: 2.0})], TEXT)
    assert answer is not None
    assert answer.start <= answer.end
    assert answer.text in ("f g h", "a b c")


def test_the_question_is_never_part_of_an_answer() -> None:
    answer = find_answer([window({-1: 50.0, 4: 1.0}, {-1: 50.0, 4: 1.0})], TEXT)
    assert answer is not None
    assert answer.text == "e"


def test_no_answer_wins_only_when_it_is_likelier() -> None:
    assert find_answer([window({-2: 3.0, 4: 2.0}, {-2: 3.0, 4: 2.0})], TEXT) is None
    tied = find_answer([window({-2: 2.0, 4: 2.0}, {-2: 2.0, 4: 2.0})], TEXT)
    assert tied is not None
    assert tied.text == "e"


def test_the_score_is_the_product_of_both_probabilities() -> None:
    answer = find_answer([window({4: 2.0}, {4: 3.0}, num_tokens=5)], TEXT)
    assert answer is not None
    start, end = (
        np.exp(2.0) / (np.exp(2.0) + 5),
        np.exp(3.0) / (np.exp(3.0) + 5),
    )  # four other text tokens and no answer
    assert answer.score == pytest.approx(start * end, rel=1e-12)


def test_the_best_of_all_windows_answers_and_keeps_its_own_score() -> None:
    good = window({4: 4.0}, {4: 4.0})
    alone = find_answer([good], TEXT)
    assert find_answer([good, window({12: 1.0}, {12: 1.0}, first=8)], TEXT) == alone
    assert find_answer([window({12: 1.0}, {12: 1.0}, first=8), good], TEXT) == alone


def test_one_window_that_sees_the_answer_outweighs_others_that_see_none() -> None:
    blind = window({-2: 9.0}, {-2: 9.0}, first=8)
    answer = find_answer([blind, window({4: 4.0}, {4: 4.0})], TEXT)
    assert answer is not None
    assert answer.text == "e"
    assert find_answer([blind, blind], TEXT) is None


def test_an_answer_has_a_longest_length() -> None:
    num_tokens = MAX_ANSWER_TOKENS + 10
    longest = find_answer([window({0: 9.0}, {MAX_ANSWER_TOKENS - 1: 9.0}, num_tokens=num_tokens)], TEXT)
    assert longest is not None
    assert len(longest.text.split()) == MAX_ANSWER_TOKENS
    longer = find_answer([window({0: 9.0}, {MAX_ANSWER_TOKENS: 9.0}, num_tokens=num_tokens)], TEXT)
    assert longer is not None
    assert len(longer.text.split()) <= MAX_ANSWER_TOKENS


def test_white_space_is_trimmed_and_is_no_answer() -> None:
    logits = np.zeros((3, 2), np.float32)
    logits[1] = 9.0
    assert find_answer([(logits, np.array([(-1, -1), (0, 2), (2, 3)], np.int32))], "  a") is None
    answer = find_answer([(logits, np.array([(-1, -1), (0, 3), (3, 4)], np.int32))], " a b")
    assert answer is not None
    assert (answer.start, answer.end) == (1, 2)


def test_a_text_without_tokens_has_no_answer() -> None:
    assert find_answer([], "") is None
    assert find_answer([(np.zeros((2, 2), np.float32), np.full((2, 2), -1, np.int32))], "") is None


@given(st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_the_answer_is_that_of_a_plain_search(num_tokens: int, seed: int) -> None:
    logits, offsets = window({}, {}, num_tokens=num_tokens)
    logits[:] = np.random.default_rng(seed).normal(size=logits.shape).astype(np.float32)
    logits[0] = -100.0
    pairs = [
        (float(logits[start, 0]) + float(logits[end, 1]), start, end)
        for start in range(2, num_tokens + 2)
        for end in range(start, min(start + MAX_ANSWER_TOKENS, num_tokens + 2))
    ]
    _, start, end = max(pairs, key=lambda pair: pair[0])
    answer = find_answer([(logits, offsets)], TEXT)
    assert answer is not None
    assert (answer.start, answer.end) == (2 * (start - 2), 2 * (end - 2) + 1)
