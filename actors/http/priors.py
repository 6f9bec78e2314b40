"""Priors of labels that were found for a model's requests, the last ones, by what the requests ask."""

from collections import OrderedDict
from typing import Final

from models.tasks.calibration import Float64Array

MAX_PRIORS: Final = 64
"""Of one model; each has a number for each label, 1,024 at most."""


class Priors:
    """Log priors [L] by a key of what is asked; the one that was not asked for the longest goes first."""

    def __init__(self, max_priors: int = MAX_PRIORS) -> None:
        self._max_priors = max_priors
        self._found: OrderedDict[bytes, Float64Array] = OrderedDict()

    def get(self, key: bytes) -> Float64Array | None:
        """The prior of that key, None if it is not known any more."""
        prior = self._found.get(key)
        if prior is not None:
            self._found.move_to_end(key)
        return prior

    def put(self, key: bytes, prior: Float64Array) -> None:
        """Keeps a prior, and lets go of the oldest one where there is no room."""
        self._found[key] = prior
        self._found.move_to_end(key)
        while len(self._found) > self._max_priors:
            self._found.popitem(last=False)
