"""Priors of labels are kept for the requests that ask the same, as many as there is room for."""

import numpy as np

from actors.http.priors import Priors


def test_the_prior_that_was_not_asked_for_the_longest_goes_first() -> None:
    priors = Priors(2)
    first, second, third = (np.array([number, 1.0]) for number in range(3))
    priors.put(b"first", first)
    priors.put(b"second", second)
    assert priors.get(b"first") is first
    priors.put(b"third", third)
    assert priors.get(b"second") is None
    assert priors.get(b"first") is first
    assert priors.get(b"third") is third
    priors.put(b"first", second)
    assert priors.get(b"first") is second
