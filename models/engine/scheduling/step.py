"""A step in the making: which sequences have a share of it, and the plan that these shares come to.

Integers only. Who gets a share, and which blocks, is the scheduler's business.
"""

from dataclasses import dataclass, field

from models.engine.scheduling.plan import LAST_TOKEN, Admission, StepPlan
from models.engine.scheduling.request import Priority
from models.engine.scheduling.sequence import NO_BLOCK, Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A sequence's part of a step: `count` tokens from `start` on, and whether the last one's logits give its next
    token."""

    sequence: Sequence
    start: int
    count: int
    is_sampling: bool


@dataclass(kw_only=True, slots=True)
class Step:
    """A plan in the making: shares that decode one token, and the others. `budget` is how many more tokens it takes;
    `preempted` are the priorities of sequences that had to give way to it."""

    budget: int
    preempted: set[Priority] = field(default_factory=set)
    decodes: list[Share] = field(default_factory=list)
    prefills: list[Share] = field(default_factory=list)
    admitted: list[Admission] = field(default_factory=list)
    new_blocks: list[tuple[int, int, int]] = field(default_factory=list)
    fresh_blocks: list[int] = field(default_factory=list)
    resumed: list[tuple[int, int]] = field(default_factory=list)
    kept: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def shares(self) -> list[Share]:
        """All of them in the plan's order, decodes first."""
        return self.decodes + self.prefills

    def admit(self, sequence: Sequence) -> None:
        """Notes a sequence that takes its slot with this step, and the blocks that it shares."""
        self.admitted.append(admission(sequence))
        self.new_blocks += [
            (sequence.slot, place, block) for place, block in enumerate(sequence.blocks) if block != NO_BLOCK
        ]

    def add(self, share: Share) -> None:
        """Takes a share out of the budget."""
        (self.decodes if share.count == 1 and share.start > 0 else self.prefills).append(share)
        self.budget -= share.count

    def plan(self, *, copies: list[tuple[int, int]], regimes: list[int]) -> StepPlan:
        """The finished plan; `copies` and `regimes` are the plan's."""
        shares = self.shares
        return StepPlan(
            slots=[share.sequence.slot for share in shares],
            starts=[share.start for share in shares],
            counts=[share.count for share in shares],
            is_sampling=[share.is_sampling for share in shares],
            token_ids=tokens_of(shares),
            admitted=self.admitted,
            new_blocks=self.new_blocks,
            fresh_blocks=self.fresh_blocks,
            targets=targets_of(shares),
            copies=copies,
            regimes=regimes,
            resumed=self.resumed,
            kept=self.kept,
        )


def admission(sequence: Sequence) -> Admission:
    """What the ranks are told of a sequence that takes its slot."""
    request = sequence.request
    return Admission(
        slot=sequence.slot,
        num_prompt=sequence.num_prompt,
        params=request.params,
        seed=request.seed,
        stop_ids=tuple(sorted(request.stop_ids)),
        token_ids=tuple(sequence.token_ids) if request.params.looks_back else (),
    )


def tokens_of(shares: list[Share]) -> list[int]:
    """The step's new tokens; one that is still being sampled is `LAST_TOKEN`."""
    tokens: list[int] = []
    for share in shares:
        known = share.sequence.token_ids
        if share.count == 1:
            tokens.append(known[share.start] if share.start < len(known) else LAST_TOKEN)
        else:
            chunk = known[share.start : share.start + share.count]
            tokens += chunk
            tokens += [LAST_TOKEN] * (share.count - len(chunk))
    return tokens


def targets_of(shares: list[Share]) -> dict[int, list[int]]:
    """For shares whose prompt log probabilities are wanted: the prompt tokens that follow the ones computed."""
    targets: dict[int, list[int]] = {}
    for index, share in enumerate(shares):
        sequence = share.sequence
        if sequence.request.params.prompt_logprobs is not None and share.start + 1 < sequence.num_prompt:
            stop = min(share.start + share.count + 1, sequence.num_prompt)
            targets[index] = sequence.token_ids[share.start + 1 : stop]
    return targets
