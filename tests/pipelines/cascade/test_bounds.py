"""What a labelled sample proves of a bound: against sums of binomial coefficients, tables, and thousands of drawn samples."""

from collections.abc import Callable
from math import comb

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.cascade.bounds import FloatArray, find_bound, least_right, lower_end, upper_tail

ASKED, CONFIDENCE = 0.95, 0.95


def exact_tail(num_right: int, num_kept: int, share: float) -> float:
    return sum(comb(num_kept, k) * share**k * (1 - share) ** (num_kept - k) for k in range(num_right, num_kept + 1))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize(("num_right", "num_kept"), [(0, 0), (1, 0), (0, 7), (5, 7), (7, 7), (190, 200), (201, 200)])
def test_a_tail_is_the_sum_of_its_chances(num_right: int, num_kept: int, share: float) -> None:
    assert upper_tail(num_right, num_kept, share) == pytest.approx(exact_tail(num_right, num_kept, share), abs=1e-12)


@pytest.mark.parametrize(
    ("num_right", "num_kept", "confidence", "least"),
    [
        (59, 59, 0.95, 0.05 ** (1 / 59)),  # all right: the n-th root
        (10, 10, 0.975, 0.025**0.1),
        (0, 10, 0.95, 0.0),
        (9, 10, 0.95, 0.6058),  # the two-sided 90% interval of 9 of 10 in published tables: 0.6058 to 0.9949
        (5, 10, 0.975, 0.1871),  # the two-sided 95% interval of 5 of 10: 0.1871 to 0.8129
    ],
)
def test_the_lower_end_is_that_of_clopper_and_pearson(
    num_right: int, num_kept: int, confidence: float, least: float
) -> None:
    assert lower_end(num_right, num_kept, confidence) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("num_kept", [0, 1, 58, 59, 60, 93, 200])
def test_a_number_of_right_answers_proves_a_share_where_their_lower_end_reaches_it(num_kept: int) -> None:
    least = least_right(num_kept, ASKED, CONFIDENCE)
    proven = [right for right in range(num_kept + 1) if exact_tail(right, num_kept, ASKED) <= 1 - CONFIDENCE]
    assert least == (proven[0] if proven else num_kept + 1)
    assert all(
        (lower_end(right, num_kept, CONFIDENCE) >= ASKED - 1e-9) == (right >= least) for right in range(num_kept + 1)
    )


def test_no_bound_can_be_proven_by_too_few_rows() -> None:
    assert least_right(58, ASKED, CONFIDENCE) == 59
    assert least_right(59, ASKED, CONFIDENCE) == 59


def cliff(scores: FloatArray) -> npt.NDArray[np.float64]:
    """Just good enough over 0.8, and bad under it."""
    return np.where(scores >= 0.8, 0.951, 0.7)


def hopeless(scores: FloatArray) -> npt.NDArray[np.float64]:
    """Never good enough, and by little."""
    return np.full(len(scores), 0.949)


def wavy(scores: FloatArray) -> npt.NDArray[np.float64]:
    """The surest answers are the worst ones."""
    return np.where(scores >= 0.9, 0.93, np.where(scores >= 0.7, 0.99, 0.6))


def steep(scores: FloatArray) -> npt.NDArray[np.float64]:
    """As a model's scores mostly are: nearly all is right from some score on."""
    return np.where(scores >= 0.7, 0.995, 0.6)


Curve = Callable[[FloatArray], npt.NDArray[np.float64]]
CURVES = [steep, cliff, hopeless, wavy]
FINE = np.linspace(0.5, 1.0, 200_001).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES)
def test_a_bound_that_keeps_less_right_answers_than_asked_is_as_rare_as_it_says(curve: Curve) -> None:
    """2,000 samples of 400 rows whose share of right answers is known for every score: over 0.95 + noise of them have a bound
    whose answers are right as often as was asked, or none."""
    shares = curve(FINE)
    over = np.cumsum(shares[::-1])[::-1] / np.arange(len(FINE), 0, -1)  # [scores] what is right of all from there on
    draw = np.random.default_rng(7)
    num_wrong = num_found = 0
    for number in range(2000):
        scores = draw.uniform(0.5, 1.0, 400).astype(np.float32)
        is_right = draw.uniform(size=400) < curve(scores)
        found = find_bound(scores, is_right, accuracy=ASKED, confidence=CONFIDENCE, seed=number).passed
        num_found += found is not None
        num_wrong += found is not None and over[np.searchsorted(FINE, found.bound)] < ASKED
    noise = 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert num_wrong / 2000 <= 0.05 + noise
    if curve is steep:
        assert num_found > 1800, "a bound is found where there is one"


def test_more_rows_find_a_lower_bound() -> None:
    """The lowest bound of scores that are what they say is the one over which they are 0.95 on average: 0.9."""
    draw = np.random.default_rng(3)
    found = []
    for count in (10_000, 50_000, 300_000):
        scores = draw.uniform(0.5, 1.0, count).astype(np.float32)
        search = find_bound(scores, draw.uniform(size=count) < scores, accuracy=ASKED, confidence=CONFIDENCE)
        assert search.passed is not None
        assert search.passed.least >= ASKED
        assert search.failed is not None
        assert search.failed.bound < search.passed.bound
        found.append(search.passed.bound)
    assert found[0] > found[1] > found[2] > 0.9
    assert found[2] < 0.91


def test_without_rows_there_is_nothing_to_try() -> None:
    search = find_bound(np.empty(0, np.float32), np.empty(0, np.bool_), accuracy=ASKED, confidence=CONFIDENCE)
    assert (search.num_rows, search.passed, search.failed) == (0, None, None)


def test_a_bound_is_a_number_that_keeps_the_score_it_was_made_from() -> None:
    """All scores are alike and right: the bound must keep them, read back from a spec."""
    scores = np.full(400, np.float32(0.9999999), np.float32)
    search = find_bound(scores, np.ones(400, np.bool_), accuracy=ASKED, confidence=CONFIDENCE)
    assert search.passed is not None
    assert search.passed.num_kept == search.num_rows == 300
    assert np.float32(float(repr(search.passed.bound))) <= scores[0]
