"""Continuous batching: which sequences get how many tokens in the next step, and what the step's
tokens do to them.

`schedule()` may be called for step n + 1 before step n was committed: who runs and which blocks
depends only on how many tokens there are, so the plan names a token that is still being sampled as
"your last token". A sequence that turns out to have stopped drops its extra step.

Online before batch: no batch sequence gets a token of a step that an online one could have had,
and none keeps a slot or a block that an online one waits for. But a recurrent network's prompts
are cut between whole chunks of its scan, so that less than a chunk may be left to others.

Integers only: no tensors, no text. Stop strings are the engine's, which ends a sequence through
`finish`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.lane import Lane
from models.engine.scheduling.order import ordered
from models.engine.scheduling.plan import StepPlan
from models.engine.scheduling.request import PRIORITIES, FinishReason, Priority, Request, TokenLogprobs
from models.engine.scheduling.sequence import NO_SLOT, Sequence
from models.engine.scheduling.states import KeptStates
from models.engine.scheduling.step import Share, Step
from models.engine.scheduling.tables import BlockTables
from models.errors import RequestError

MIN_FREE_FRACTION = 0.01  # of the pool; kept back from admissions while others run, so that they can grow
MAX_PASSED_OVER = 64  # sequences that a step leaves waiting for what it computes of their beginnings


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What a step brought: for each sampling sequence in plan order the tokens accepted and, where asked for, their
    log probabilities; for each of the plan's `targets` the log probabilities of those prompt tokens."""

    tokens: list[list[int]]
    logprobs: Mapping[int, list[TokenLogprobs]] = field(default_factory=dict)
    prompt_logprobs: Mapping[int, list[TokenLogprobs]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceProgress:
    """A sequence that a committed step gave tokens to."""

    sequence: Sequence
    new_tokens: list[int]


class Scheduler:
    """Sequences waiting and running, over one block pool; those of each priority are in `lanes`.

    A step computes at most `max_num_batched_tokens`, while there are online requests
    `online_batched_tokens`: what batch adds to a step makes online decoding wait.

    `window` is the largest number of keys that any layer of the model sees, None for all: blocks
    before it are given back while a sequence runs. `regime` tells the rope regime of a sequence
    from its prompt tokens and its tokens in all; a running sequence whose regime changes is
    computed again from its first token. `states` are those of a recurrent network, as far as they
    are kept. Batch requests are begun in windows of `batch_window`, each in the order that shares
    most (`order`); with 1 in the order in which they came, as online ones always are.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        online_batched_tokens: int | None = None,
        max_model_len: int,
        window: int | None = None,
        regime: Callable[[int, int], int] | None = None,
        states: KeptStates | None = None,
        batch_window: int = 1,
    ) -> None:
        self.pool = pool
        self._tables = BlockTables(pool, window=window, max_num_batched_tokens=max_num_batched_tokens, states=states)
        self._regime = regime
        self.max_num_seqs, self.max_num_batched_tokens, self.max_model_len = (
            max_num_seqs,
            max_num_batched_tokens,
            max_model_len,
        )
        self.online_batched_tokens = online_batched_tokens or max_num_batched_tokens
        self.lanes: dict[Priority, Lane] = {priority: Lane() for priority in PRIORITIES}  # in the order they are served
        if batch_window > 1:
            order = partial(ordered, block_size=pool.block_size, num_found=self._tables.num_found)
            self.lanes["batch"] = Lane(order=order, window=batch_window)
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))
        self._in_flight: deque[list[Share]] = deque()  # of each uncommitted plan, in its order

    @property
    def has_work(self) -> bool:
        """Whether a sequence is waiting or running, or a step is uncommitted."""
        return bool(self._in_flight) or any(lane.has_work for lane in self.lanes.values())

    @property
    def running(self) -> list[Sequence]:
        """All running sequences: those of higher priority first, among equals the oldest. The last gives way first."""
        return [sequence for lane in self.lanes.values() for sequence in lane.running]

    def add(self, request: Request) -> Sequence:
        """Queues a request.

        Raises:
            RequestError: it is empty, or can never fit the model or the cache.
        """
        num_prompt, total = len(request.token_ids), len(request.token_ids) + request.params.max_tokens
        if num_prompt == 0:
            raise RequestError("the prompt has no tokens; it must have at least one")
        if total > self.max_model_len:
            raise RequestError(
                f"the prompt has {num_prompt} tokens and max_tokens is {request.params.max_tokens}, together {total}; "
                f"the limit is {self.max_model_len} (max_model_len): shorten the prompt or lower max_tokens"
            )
        if self._tables.most_blocks(total) > self.pool.num_blocks:
            raise RequestError(
                f"the prompt and its output need {total} tokens of cache; the cache holds {self.pool.num_blocks * self.pool.block_size}: "
                "raise cache_bytes or lower max_tokens"
            )
        sequence = self._tables.new_sequence(request)
        self.lanes[request.priority].add(sequence)
        return sequence

    def schedule(self) -> StepPlan | None:
        """The next step's plan, or None when there is nothing to compute.

        Online sequences come before batch ones; in both, running sequences come first, oldest first, then new ones. No
        new one begins where one of its priority just gave way, or while one of a higher priority waits: it would soon
        give back what it took.
        """
        step = Step(budget=self.online_batched_tokens if self.lanes["online"].has_work else self.max_num_batched_tokens)
        is_admitting = True  # until one that waits finds no room
        for priority, lane in self.lanes.items():
            self._go_on(lane, step)
            is_admitting = is_admitting and priority not in step.preempted
            passed: list[Sequence] = []
            while is_admitting and step.budget > 0 and lane.has_next():
                if len(passed) < MAX_PASSED_OVER and self._can_wait(lane.waiting[0]):
                    passed.append(lane.waiting.popleft())
                else:
                    is_admitting = self._admit(lane, step)
            lane.waiting.extendleft(reversed(passed))
        return self._close(step)

    def commit(self, result: StepResult) -> list[SequenceProgress]:
        """Applies the oldest uncommitted step's result. Finished sequences give back their blocks and slots.

        Returns the sequences that got tokens, in plan order; a sequence may now be finished.
        """
        shares = self._in_flight.popleft()
        for index, found in result.prompt_logprobs.items():
            first = shares[index].start + 1
            shares[index].sequence.prompt_logprobs[first : first + len(found)] = found
        sampling = [share.sequence for share in shares if share.is_sampling]
        progress: list[SequenceProgress] = []
        for index, (sequence, tokens) in enumerate(zip(sampling, result.tokens, strict=True)):
            sequence.num_pending -= 1
            if not sequence.is_finished:
                progress.append(self._accept(sequence, tokens, result.logprobs.get(index, [])))
        return progress

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Ends a sequence, wherever it is. Steps in flight may still compute for it; what they bring is dropped."""
        if sequence.is_finished:
            return
        sequence.finish_reason = reason
        self._lane_of(sequence).end(sequence, reason)
        if sequence.slot != NO_SLOT:
            self._vacate(sequence)
        self._tables.leave(sequence)

    def check_integrity(self) -> None:
        """The pool is consistent, blocks are held by those who use them alone, and so are slots.

        Raises:
            EngineError: it is not so.
        """
        running = self.running
        self._tables.check_integrity(running)
        assert len(running) + len(self._free_slots) == self.max_num_seqs

    def _go_on(self, lane: Lane, step: Step) -> None:
        """Gives every running sequence of a lane its share of the step."""
        for sequence in list(lane.running):
            if sequence.slot == NO_SLOT or sequence.num_generated >= sequence.request.params.max_tokens:
                continue
            if self._regime_of(sequence) != sequence.regime:
                self._restart(sequence)
            elif step.budget > 0:
                self._continue(sequence, step)

    def _continue(self, sequence: Sequence, step: Step) -> None:
        """Gives a running sequence its share of the step. When blocks run out, batch sequences give way, then those of
        its own priority, the newest first."""
        count = self._tables.cut(sequence, step.budget)
        if count <= 0:
            return
        self._tables.drop_unseen(sequence)
        needed = self._tables.num_missing(sequence, count)
        while self.pool.num_available < needed:
            running = self.running
            if len(running) == 1 and self._tables.unpin():
                continue
            victim = running[-1]
            self._preempt(victim, step)
            if victim is sequence:
                return
        self._tables.extend(sequence, needed, step)
        self._advance(sequence, count, step)

    def _admit(self, lane: Lane, step: Step) -> bool:
        """Starts the first sequence that waits in a lane if a slot and the blocks of its first chunk are free, or
        become free when those of a lower priority give way."""
        sequence = lane.waiting[0]
        if sequence.num_pending or not (self._free_slots or self._displace_for(sequence, step)):
            return False
        sequence.regime = self._regime_of(sequence)
        self._tables.share(sequence)
        count = self._tables.cut(sequence, step.budget)
        self._tables.drop_unseen(sequence)
        needed = self._tables.num_missing(sequence, count)
        while self.pool.num_available < needed + self._reserve(lane):
            if not (self._displace_for(sequence, step) or (not self.running and self._tables.unpin())):
                self._tables.forget(sequence)
                return False
        lane.start(sequence)
        sequence.slot = self._free_slots.pop()
        self._tables.admit(sequence, step)
        self._tables.extend(sequence, needed, step)
        self._advance(sequence, count, step)
        return True

    def _can_wait(self, sequence: Sequence) -> bool:
        """Whether a sequence that begins later has less to compute, because the step being planned
        computes its beginning. An online one does not wait for that."""
        return sequence.request.priority == "batch" and self._tables.is_on_its_way(sequence)

    def _reserve(self, lane: Lane) -> float:
        """Blocks that an admission leaves, so that what runs can grow; online sequences grow at batch's cost."""
        runs = lane.running or self.lanes["online"].running
        return MIN_FREE_FRACTION * self.pool.num_blocks if runs else 0

    def _displace_for(self, sequence: Sequence, step: Step) -> bool:
        """Preempts the newest running batch sequence if this one is online. Returns whether there was one to preempt."""
        victims = self.lanes["batch"].running
        if sequence.request.priority == "batch" or not victims:
            return False
        self._preempt(victims[-1], step)
        return True

    def _advance(self, sequence: Sequence, count: int, step: Step) -> None:
        start = self._tables.compute(sequence, count, step)
        is_sampling = sequence.num_computed == sequence.num_tokens
        sequence.num_pending += is_sampling
        step.add(Share(sequence=sequence, start=start, count=count, is_sampling=is_sampling))

    def _accept(self, sequence: Sequence, tokens: list[int], logprobs: list[TokenLogprobs]) -> SequenceProgress:
        """Appends sampled tokens up to the one that ends the sequence, if one does."""
        params, accepted = sequence.request.params, 0
        reason: FinishReason | None = None
        for token in tokens:
            sequence.token_ids.append(token)
            accepted += 1
            num_known = len(sequence.token_ids) - sequence.num_prompt
            if token in sequence.request.stop_ids and num_known >= params.min_tokens:
                reason = "stop"
            elif num_known >= params.max_tokens:
                reason = "length"
            if reason is not None:
                break
        sequence.logprobs += logprobs[:accepted]
        self._lane_of(sequence).num_generated_tokens += accepted
        if reason is not None:
            self.finish(sequence, reason)
        elif sequence.slot != NO_SLOT:
            self._tables.register(sequence)
        return SequenceProgress(sequence=sequence, new_tokens=tokens[:accepted])

    def _preempt(self, sequence: Sequence, step: Step) -> None:
        """Sends a sequence back to the front of its queue; it will be computed again from its tokens.

        Victims are taken from the end of `running`, which `schedule` has not reached yet, so this step holds nothing
        of theirs. What a step in flight still brings them is kept.
        """
        self._restart(sequence)
        self._lane_of(sequence).num_preemptions += 1
        step.preempted.add(sequence.request.priority)

    def _restart(self, sequence: Sequence) -> None:
        self._lane_of(sequence).send_back(sequence)
        self._vacate(sequence)

    def _lane_of(self, sequence: Sequence) -> Lane:
        return self.lanes[sequence.request.priority]

    def _vacate(self, sequence: Sequence) -> None:
        self._free_slots.append(sequence.slot)
        sequence.slot = NO_SLOT
        self._tables.forget(sequence)

    def _regime_of(self, sequence: Sequence) -> int:
        return 0 if self._regime is None else self._regime(sequence.num_prompt, sequence.num_tokens)

    def _close(self, step: Step) -> StepPlan | None:
        """The finished plan, after which the step is in flight; None of an empty step."""
        shares = step.shares
        if not shares:
            return None
        self._in_flight.append(shares)
        self._tables.end_step()
        copies = self._tables.compact(self.running, step)
        regimes = [] if self._regime is None else [share.sequence.regime for share in shares]
        return step.plan(copies=copies, regimes=regimes)
