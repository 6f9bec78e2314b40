"""What a model would say of labels whatever the text is, taken out of what it says of texts.

    prior      the mean of its probabilities of the labels after content-free texts ("N/A", nothing, "[MASK]"), as contextual
               calibration has it (Zhao et al. 2021, Calibrate Before Use, https://arxiv.org/abs/2102.09690)
    batch      the mean of its log probabilities of the labels over the texts of a unit (Zhou et al. 2023, Batch Calibration,
               https://arxiv.org/abs/2309.17249), taken as if `NEUTRAL_ROWS` rows more favoured no label: of a unit of one row
               nothing would be left otherwise

In both the mean is subtracted from the log probabilities of each text, which the softmax makes probabilities of again: then
labels that a model favours for their words, or for where they stand, are not favoured. Where the texts of a unit are mostly of
one label, `batch` takes that for a prior.
"""

import math
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]

Calibration = Literal["none", "prior", "batch"]

NEUTRAL_ROWS: Final = 4

CONTENT_FREE: Final = ("N/A", "", "[MASK]")
"""Texts that say nothing."""


def log_shares(logprobs: FloatArray) -> Float64Array:
    """Log softmax over labels [N, L]: the log of each one's share among them."""
    values = logprobs.astype(np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    shares: Float64Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shares


def log_prior(logprobs: FloatArray) -> Float64Array:
    """The log of the labels' mean probabilities [L] after content-free texts, from their log probabilities [N, L]."""
    shares = log_shares(logprobs)
    prior: Float64Array = np.logaddexp.reduce(shares, axis=0) - math.log(len(shares))
    return prior


def log_mean(logprobs: FloatArray) -> Float64Array:
    """The mean of the labels' log probabilities [L] over the texts of a unit [N, L], next to rows that favour no label."""
    shares = log_shares(logprobs)
    centred = shares - shares.mean(axis=1, keepdims=True)  # what all labels have in common does not count
    mean: Float64Array = centred.sum(axis=0) / (len(shares) + NEUTRAL_ROWS)
    return mean


def without_bias(logprobs: FloatArray, bias: Float64Array) -> Float64Array:
    """The log probabilities [N, L] without what is there whatever the text is [L]."""
    return log_shares(logprobs) - bias


def label_mass(logprobs: FloatArray) -> Float64Array:
    """How much of the model's belief all labels together have [N], from 0 to 1."""
    mass: Float64Array = np.exp(logprobs.astype(np.float64)).sum(axis=1)
    return mass
