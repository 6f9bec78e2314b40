"""Greedy tokens next to transformers': the same, but where two tokens are as good as alike.

Another order of summing moves a logit by about 1e-5, and a processor decides about that order. So the oracle's own logits
say whether a token of ours that differs is one that it might have chosen.
"""

from typing import Any

import torch

NEAR_TIE = 1e-4
"""How far apart logits of two implementations in float32 may be."""


def assert_greedy(oracle: Any, prompt: list[int], found: list[int], **settings: Any) -> None:
    """`found` are the tokens that transformers' `oracle` writes after the prompt with these settings of `generate`, up to one that
    is nearly as good as its own; from there on it reads another text."""
    with torch.no_grad():
        written = oracle.generate(
            torch.tensor([prompt]),
            **{"max_new_tokens": len(found), "pad_token_id": 0} | settings,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    expected = written.sequences[0, len(prompt) :].tolist()
    for ours, theirs, scores in zip(found, expected, written.scores, strict=False):
        if ours != theirs:
            assert scores[0, theirs] - scores[0, ours] < NEAR_TIE
            return
    assert len(found) == len(expected)
