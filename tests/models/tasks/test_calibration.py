"""Values from the formulas of the two papers, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tasks.calibration import NEUTRAL_ROWS, label_mass, log_mean, log_prior, log_shares, without_bias
from models.tasks.labels import class_probabilities

logprobs = st.lists(st.lists(st.floats(-30, 0, width=32), min_size=3, max_size=3), min_size=1, max_size=5)


def test_contextual_calibration_divides_by_the_prior_and_normalizes() -> None:
    """Zhao et al. 2021, equation 1 with W = diag(p_cf)^-1 and b = 0, then the softmax's normalization."""
    content_free = np.array([[0.2, 0.6, 0.2], [0.4, 0.4, 0.2]])
    given_text = np.array([[0.3, 0.5, 0.2]])
    prior = content_free.mean(axis=0)  # 0.3, 0.5, 0.2
    expected = given_text / prior
    expected /= expected.sum()
    found = class_probabilities(
        without_bias(np.log(given_text * 0.01).astype(np.float32), log_prior(np.log(content_free).astype(np.float32)))
    )
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[0] == pytest.approx([1 / 3] * 3, abs=1e-6)  # the text says no more than texts that say nothing


def test_a_label_far_behind_the_others_has_a_prior_all_the_same() -> None:
    """The mean of p is taken in logarithms: exp(-800) is 0 in float64."""
    content_free = np.array([[0.0, -800.0], [0.0, -900.0]], np.float32)
    assert log_prior(content_free) == pytest.approx([0.0, -800.0 - np.log(2)])
    assert class_probabilities(without_bias(content_free[:1], log_prior(content_free))) == pytest.approx(
        np.array([[1 / 3, 2 / 3]])
    )


def test_batch_calibration_takes_out_what_all_texts_have_in_common() -> None:
    """Zhou et al. 2023: log p - E[log p], the geometric mean of a unit is the prior; with four rows more that say nothing."""
    unit = np.array([[0.8, 0.2], [0.5, 0.5]])
    expected = unit / (unit[0] * unit[1]) ** (1 / (2 + NEUTRAL_ROWS))
    expected /= expected.sum(axis=1, keepdims=True)
    values = np.log(unit).astype(np.float32)
    assert class_probabilities(without_bias(values, log_mean(values))) == pytest.approx(expected, abs=1e-6)


@given(logprobs)
def test_a_large_batch_has_no_favourite_left(values: list[list[float]]) -> None:
    given_values = np.array(values * 20_000, np.float32)
    favour = without_bias(given_values, log_mean(given_values)).mean(axis=0)
    assert favour - favour.mean() == pytest.approx([0, 0, 0], abs=0.02)


def test_a_batch_of_one_row_keeps_most_of_what_it_says() -> None:
    row = np.log(np.array([[0.9, 0.1]], np.float32))
    (found,) = class_probabilities(without_bias(row, log_mean(row)))
    assert 0.8 < found[0] < 0.9


@given(logprobs)
def test_log_shares_are_the_logarithm_of_class_probabilities(values: list[list[float]]) -> None:
    given_values = np.array(values, np.float32)
    assert np.exp(log_shares(given_values)) == pytest.approx(class_probabilities(given_values), abs=1e-9)


def test_mass_is_what_all_labels_have_together() -> None:
    assert label_mass(np.log(np.array([[0.1, 0.2, 0.3], [0.01, 0.01, 0.0001]])).astype(np.float32)) == pytest.approx(
        [0.6, 0.0201], abs=1e-6
    )
