"""Models of integers, so that a scheduler's plans can be carried out in microseconds: the next token is a digest of all
tokens before it. A block given away too early, a slot mixed up, a token lost or computed twice changes what follows."""

import random
import zlib
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Protocol

from models.engine.scheduling.plan import LAST_TOKEN, StepPlan
from models.engine.scheduling.request import PRIORITIES, FinishReason, Priority, Request, SamplingParams
from models.engine.scheduling.scheduler import Scheduler, StepResult
from models.engine.scheduling.sequence import Sequence

UNWRITTEN = 255


def digest(context: Seq[int]) -> int:
    return zlib.crc32(bytes(context)) % 200


def answer_to(prompt: Seq[int], max_tokens: int) -> list[int]:
    """What a request gives when nothing else runs."""
    context = list(prompt)
    for _ in range(max_tokens):
        context.append(digest(context))
    return context[len(prompt) :]


class Model(Protocol):
    def execute(self, plan: StepPlan) -> StepResult: ...


class PagedModel:
    """Keeps tokens in blocks, which it finds by each slot's block table."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._pages: dict[int, list[int]] = {}
        self._tables: dict[tuple[int, int], int] = {}  # (slot, place) -> block
        self._last: dict[int, int] = {}  # slot -> token

    def execute(self, plan: StepPlan) -> StepResult:
        for slot, place, block in plan.new_blocks:
            self._tables[slot, place] = block
        for block in plan.fresh_blocks:
            self._pages[block] = [UNWRITTEN] * self._size
        moved = {target: list(self._pages[source]) for source, target in plan.copies}
        self._pages.update(moved)
        for slot, start, tokens in _shares(plan):
            for position, token in enumerate(tokens, start):
                page = self._pages[self._tables[slot, position // self._size]]
                page[position % self._size] = self._last[slot] if token == LAST_TOKEN else token
        return _sample(plan, self._last, self._read)

    def _read(self, slot: int, end: int) -> list[int]:
        places = range(-(-end // self._size))
        return [token for place in places for token in self._pages[self._tables[slot, place]]][:end]


class StateModel:
    """Keeps a state for each slot, which starts afresh with position 0, and no blocks: a recurrent network."""

    def __init__(self) -> None:
        self.states: dict[int, list[int]] = {}
        self._last: dict[int, int] = {}

    def execute(self, plan: StepPlan) -> StepResult:
        for slot, start, tokens in _shares(plan):
            state = self.states[slot] if start else []
            assert len(state) == start
            self.states[slot] = state + [self._last[slot] if token == LAST_TOKEN else token for token in tokens]
        return _sample(plan, self._last, lambda slot, end: self.states[slot])


class HybridModel:
    """Keeps tokens in blocks and states in slots, and copies of states in rows: a network of
    attention and recurrent layers. A state that is not that of the tokens in the blocks is found
    at once."""

    def __init__(self, block_size: int) -> None:
        self.pages, self._states = PagedModel(block_size), StateModel()
        self._rows: dict[int, list[int]] = {}

    def execute(self, plan: StepPlan) -> StepResult:
        for row, slot in plan.resumed:
            self._states.states[slot] = list(self._rows[row])
        result = self._states.execute(plan)
        assert self.pages.execute(plan) == result
        for slot, end, row in plan.kept:
            index = plan.slots.index(slot)
            assert plan.starts[index] < end <= plan.starts[index] + plan.counts[index]
            self._rows[row] = self._states.states[slot][:end]
        assert len({row for _, _, row in plan.kept}) == len(plan.kept)
        return result


class _Read(Protocol):
    def __call__(self, slot: int, end: int) -> list[int]: ...


def _shares(plan: StepPlan) -> list[tuple[int, int, list[int]]]:
    """(slot, start, tokens) of each share."""
    found, first = [], 0
    for slot, start, count in zip(plan.slots, plan.starts, plan.counts, strict=True):
        found.append((slot, start, plan.token_ids[first : first + count]))
        first += count
    return found


def _sample(plan: StepPlan, last: dict[int, int], read: _Read) -> StepResult:
    ends = zip(plan.slots, plan.starts, plan.counts, plan.is_sampling, strict=True)
    drawn = {slot: digest(read(slot, start + count)) for slot, start, count, is_sampling in ends if is_sampling}
    last.update(drawn)
    return StepResult(tokens=[[token] for token in drawn.values()])


class Driver:
    """Steps a scheduler with up to `ahead` plans in flight, and checks after each plan that online
    came first. A network with states computes chunks of `chunk` tokens, which are not cut where a
    step has room for less."""

    def __init__(self, scheduler: Scheduler, model: Model, *, ahead: int = 1, chunk: int = 1) -> None:
        self.scheduler, self._model, self._ahead, self._chunk = scheduler, model, ahead, chunk
        self._flying: deque[StepResult] = deque()

    def step(self) -> StepPlan | None:
        plan = self.scheduler.schedule()
        check_online_first(self.scheduler, plan, self._chunk)
        if plan is not None:
            self._flying.append(self._model.execute(plan))
        if self._flying and (plan is None or len(self._flying) >= self._ahead):
            self.scheduler.commit(self._flying.popleft())
        self.scheduler.check_integrity()
        return plan

    def drain(self) -> list[StepPlan]:
        plans: list[StepPlan] = []
        while self.scheduler.has_work:
            plan = self.step()
            plans += [] if plan is None else [plan]
        return plans

    def finish(self, sequence: Sequence, reason: FinishReason = "abort") -> None:
        self.scheduler.finish(sequence, reason)
        self.scheduler.check_integrity()


def check_online_first(scheduler: Scheduler, plan: StepPlan | None, chunk: int) -> None:
    """No online sequence lacks what a batch one has: a slot, a block, a token of this step."""
    online, batch = scheduler.lanes["online"], scheduler.lanes["batch"]
    num_tokens = 0 if plan is None else plan.num_tokens
    budget = scheduler.online_batched_tokens if online.has_work else scheduler.max_num_batched_tokens
    assert num_tokens <= budget
    if online.waiting and num_tokens < budget:
        assert not batch.running
    if plan is None:
        return
    is_sampling = dict(zip(plan.slots, plan.is_sampling, strict=True))
    assert is_sampling.keys() <= {sequence.slot for sequence in scheduler.running}
    if any(sequence.slot in is_sampling for sequence in batch.running):
        assert not online.waiting
        for sequence in online.running:
            is_between_chunks = chunk > 1 and sequence.num_computed % chunk == 0
            has_all = sequence.num_generated == sequence.request.params.max_tokens
            assert is_sampling.get(sequence.slot, has_all) or is_between_chunks


def add(driver: Driver, prompt: list[int], *, max_tokens: int = 1, priority: Priority = "batch") -> Sequence:
    """A request that is given to the driver's scheduler."""
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    request = Request(request_id="any", token_ids=tuple(prompt), params=params, seed=0, priority=priority)
    return driver.scheduler.add(request)


def expected(sequence: Sequence) -> list[int]:
    """What a sequence gives when nothing else runs."""
    return answer_to(sequence.request.token_ids, sequence.request.params.max_tokens)


def drive_at_random(
    rng: random.Random, driver: Driver, *, num_steps: int, after_step: Callable[[], None] | None = None
) -> list[Sequence]:
    """Requests of three jobs that come and are given up at random over so many steps, of which the
    driver checks every one. Each gave what it gives alone, as far as it came; nothing stays held."""
    jobs = [[rng.randrange(40) for _ in range(rng.randint(1, 30))] for _ in range(3)]
    sequences: list[Sequence] = []
    for _ in range(num_steps):
        if driver.scheduler.lanes["batch"].num_waiting < 8 and rng.random() < 0.4:
            prompt = [*rng.choice(jobs), *(rng.randrange(40) for _ in range(rng.randint(0, 20)))]
            priority = rng.choices(PRIORITIES, [1, 6])[0]
            sequences.append(add(driver, prompt, max_tokens=rng.randint(1, 12), priority=priority))
        if sequences and rng.random() < 0.05:
            driver.finish(rng.choice(sequences[-8:]))
        driver.step()
        if after_step is not None:
            after_step()
    driver.drain()
    assert driver.scheduler.pool.num_held == 0
    for sequence in sequences:
        assert sequence.output_ids == expected(sequence)[: len(sequence.output_ids)]
        assert sequence.finish_reason == "abort" or sequence.output_ids == expected(sequence)
    return sequences
