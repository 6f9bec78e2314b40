"""The sequences of one priority: those that wait, those that run, and counts of all there ever were.

Integers only. Which lane is served when is the scheduler's business.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from models.engine.scheduling.request import FinishReason
from models.engine.scheduling.sequence import NO_BLOCK, NO_SLOT, Sequence
from models.engine.scheduling.stats import PriorityStats

Order = Callable[[Seq[Sequence]], list[Sequence]]


@dataclass(kw_only=True, slots=True, eq=False)
class Lane:
    """`waiting` in the order they will run, `running` oldest first.

    With an `order` sequences come to `later`, and wait in windows of at most `window`, one after
    the other, each in that order: nobody comes before more than a window of those who were there
    first. Without one they wait in the order in which they came.
    """

    order: Order | None = None
    window: int = 1
    later: deque[Sequence] = field(default_factory=deque)
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    num_requests: int = 0
    num_finished: int = 0
    num_aborted: int = 0
    num_preemptions: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running or self.later)

    @property
    def num_waiting(self) -> int:
        """All that do not run."""
        return len(self.waiting) + len(self.later)

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence."""
        (self.waiting if self.order is None else self.later).append(sequence)
        self.num_requests += 1

    def has_next(self) -> bool:
        """Whether a sequence waits; where only later ones do, the next window of them waits now."""
        if self.order is not None and not self.waiting and self.later:
            window = [self.later.popleft() for _ in range(min(self.window, len(self.later)))]
            self.waiting.extend(self.order(window))
        return bool(self.waiting)

    def start(self, sequence: Sequence) -> None:
        """The first that waits runs; if it never did before, what the prefix cache had of it is what it has computed."""
        assert self.waiting[0] is sequence
        self.running.append(self.waiting.popleft())
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
            self.num_prompt_tokens += sequence.num_prompt
            self.num_cached_tokens += sequence.num_cached

    def send_back(self, sequence: Sequence) -> None:
        """A running sequence waits again, before all others."""
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """A sequence leaves, wherever it is."""
        if sequence.slot != NO_SLOT:
            self.running.remove(sequence)
        elif sequence in self.later:
            self.later.remove(sequence)
        else:
            self.waiting.remove(sequence)
        if reason == "abort":
            self.num_aborted += 1
        else:
            self.num_finished += 1

    def stats(self) -> PriorityStats:
        """The numbers at this moment. May be called while another thread runs steps: each number is then right, though not
        all of the same moment."""
        running = list(self.running)
        held = set[int]().union(*(sequence.blocks for sequence in running)) - {NO_BLOCK}
        return PriorityStats(
            num_waiting=self.num_waiting,
            num_running=len(running),
            num_requests=self.num_requests,
            num_finished=self.num_finished,
            num_aborted=self.num_aborted,
            num_preemptions=self.num_preemptions,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_generated_tokens=self.num_generated_tokens,
            num_blocks_held=len(held),
        )
