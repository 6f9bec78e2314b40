"""A request while it runs: two counters that every step brings closer to each other.

`num_computed` tokens have been (or are being) put through the model, `num_tokens` exist. Prefill, chunked prefill,
decoding, prefix hits and resumption after preemption are all the same: some of the difference is computed in a step,
and when none is left a token is sampled.
"""

from models.engine.scheduling.beginning import Beginning
from models.engine.scheduling.block_pool import NO_PREFIX
from models.engine.scheduling.request import FinishReason, Request, TokenLogprobs

NO_SLOT = -1
NO_BLOCK = -1
"""Stands in a sequence's blocks for one that it has given back, because no layer sees its tokens any more."""


class Sequence:
    """The mutable state of one request in the scheduler."""

    __slots__ = (
        "beginning", "blocks", "finish_reason", "logprobs", "num_cached", "num_computed", "num_found", "num_pending", "num_prompt",
        "num_registered", "prefix", "prompt_logprobs", "regime", "request", "slot", "token_ids",
    )  # fmt: skip

    def __init__(self, request: Request, beginning: Beginning | None = None) -> None:
        """`beginning` is what it has in common with other requests in flight, None: nothing."""
        self.request, self.beginning = request, beginning
        self.token_ids = list(request.token_ids)
        self.num_prompt = len(self.token_ids)
        self.num_computed = 0
        self.num_pending = 0  # tokens being sampled by steps that are not committed yet
        self.num_cached: int | None = None  # prompt tokens that came from the prefix cache; None until it first starts
        self.slot = NO_SLOT
        self.blocks: list[int] = []
        self.num_found = 0  # blocks that held its beginning when it last started, those that were of no use included
        self.num_registered = 0  # blocks whose prefix has been looked up or made findable
        self.prefix = NO_PREFIX  # number of the prefix the registered blocks make up
        self.regime = 0  # rope regime in which it is being computed
        self.finish_reason: FinishReason | None = None
        self.logprobs: list[TokenLogprobs] = []
        wants_prompt = request.params.prompt_logprobs is not None
        self.prompt_logprobs: list[TokenLogprobs | None] = [None] * self.num_prompt if wants_prompt else []

    @property
    def num_tokens(self) -> int:
        """Tokens that exist, those still being sampled included."""
        return len(self.token_ids) + self.num_pending

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.num_prompt

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def output_ids(self) -> list[int]:
        """The tokens generated so far."""
        return self.token_ids[self.num_prompt :]
