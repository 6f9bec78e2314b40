"""One step as integers: who computes which tokens, into which blocks, and who samples. All that the host sends to a
rank.

A sequence is known by its slot, a row in the state every rank keeps: block table, sampling parameters, last sampled
token. A plan changes that state (`admitted`, `new_blocks`) and then names work on it, so a step of 200 decoding
sequences is a few short lists of integers.
"""

from dataclasses import dataclass, field

from models.engine.scheduling.request import SamplingParams

LAST_TOKEN = -1
"""Stands in `token_ids` for the token this sequence sampled in the step before, which may still be on its way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """A sequence that takes a slot with this step: the length of its prompt, how its tokens are drawn, and which of
    them end it. `token_ids` are all its tokens so far where the draws look back at them, else none."""

    slot: int
    num_prompt: int
    params: SamplingParams
    seed: int
    stop_ids: tuple[int, ...]
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """The lists `slots`, `starts`, `counts` and `is_sampling` run over the step's sequences, those
    that decode one token first.

    `starts` counts the tokens already computed, `counts` those computed now; `token_ids` are the
    new tokens of all sequences in order. `is_sampling` says whose last token's logits give a new
    token; its position, which keys the draw, is start + count. `new_blocks` are (slot, place in
    its table, block); `fresh_blocks` those whose old content means nothing. `targets` maps an
    index into these lists to the prompt tokens whose log probabilities are wanted: the token after
    each of that sequence's computed ones. `copies` are (from, to) blocks to be copied before the
    step. `regimes` are the sequences' rope regimes, for a model that has several. Of a model with
    recurrent states, `resumed` are (row, slot): the state kept in that row is copied to the slot
    before the step; and `kept` are (slot, n, row): the state after the first n tokens of the
    sequence in that slot, which the step computes, is copied to the row.
    """

    slots: list[int]
    starts: list[int]
    counts: list[int]
    is_sampling: list[bool]
    token_ids: list[int]
    admitted: list[Admission] = field(default_factory=list)
    new_blocks: list[tuple[int, int, int]] = field(default_factory=list)
    fresh_blocks: list[int] = field(default_factory=list)
    targets: dict[int, list[int]] = field(default_factory=dict)
    copies: list[tuple[int, int]] = field(default_factory=list)
    regimes: list[int] = field(default_factory=list)
    resumed: list[tuple[int, int]] = field(default_factory=list)
    kept: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)
