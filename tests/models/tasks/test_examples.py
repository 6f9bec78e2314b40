import math

import pytest

from models.tasks.examples import SimilarTexts, words_of

TEXTS = ["the parcel is late", "the invoice is wrong", "the parcel was damaged", "hello"]


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words_of("Das Paket -- GRÖSSER, 7x?") == ["das", "paket", "grösser", "7x"]


def test_rare_words_in_common_count_most() -> None:
    assert SimilarTexts(TEXTS).most_like("My invoice: is it the right one?", 2) == [1, 0]
    assert SimilarTexts(TEXTS).most_like("Damaged parcel", 4) == [2, 0, 1, 3]


def test_texts_that_are_equally_alike_keep_their_order() -> None:
    assert SimilarTexts(TEXTS).most_like("nothing in common", 3) == [0, 1, 2]
    assert SimilarTexts(TEXTS).most_like("", 9) == [0, 1, 2, 3]
    assert SimilarTexts([]).most_like("a", 2) == []


def test_scores_are_bm25s() -> None:
    """Two texts of lengths 2 and 4: idf(b) = ln(1 + (2 - 1 + 0.5) / (1 + 0.5)), k1 = 1.2, b = 0.75."""
    found = SimilarTexts(["a b", "a a c d"])
    idf_a, idf_b = math.log(1 + 0.5 / 2.5), math.log(2)
    norm_one, norm_other = 1.2 * (0.25 + 0.75 * 2 / 3), 1.2 * (0.25 + 0.75 * 4 / 3)
    expected = [(idf_a + idf_b) * 2.2 / (1 + norm_one), idf_a * 2 * 2.2 / (2 + norm_other)]
    assert found.scores("b, A x") == pytest.approx(expected)
