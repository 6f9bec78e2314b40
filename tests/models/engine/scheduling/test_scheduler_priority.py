"""Online requests and batch ones in one scheduler: who gives way, when, and that whoever gave way comes to the same
tokens."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.plan import StepPlan
from models.engine.scheduling.request import PRIORITIES, Priority, Request, SamplingParams
from models.engine.scheduling.scheduler import Scheduler
from models.engine.scheduling.sequence import NO_SLOT, Sequence
from models.errors import RequestError
from tests.helpers.models.engine_reading import Driver, PagedModel, StateModel, answer_to

SIZE = 2


def make(
    *,
    blocks: int = 64,
    seqs: int = 8,
    budget: int = 64,
    online: int | None = None,
    ahead: int = 1,
    min_density: float = 0.0,
    is_recurrent: bool = False,
) -> Driver:
    scheduler = Scheduler(
        BlockPool(blocks, SIZE, min_density=min_density, shares_prefixes=not is_recurrent),
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        online_batched_tokens=online,
        max_model_len=128,
    )
    return Driver(scheduler, StateModel() if is_recurrent else PagedModel(SIZE), ahead=ahead)


def add(driver: Driver, priority: Priority, num_prompt: int, *, max_tokens: int = 3, first: int = 0) -> Sequence:
    """Queues a request whose prompt begins with the token `first`."""
    return driver.scheduler.add(
        Request(
            request_id="any",
            token_ids=(first, *range(1, num_prompt)),
            params=SamplingParams(temperature=0.0, max_tokens=max_tokens),
            seed=0,
            priority=priority,
        )
    )


def expected(sequence: Sequence) -> list[int]:
    return answer_to(sequence.request.token_ids, sequence.request.params.max_tokens)


def plan_of(driver: Driver) -> StepPlan:
    plan = driver.step()
    assert plan is not None
    return plan


def test_an_online_request_takes_the_budget_in_the_step_it_arrives() -> None:
    driver = make(budget=8)
    add(driver, "batch", 40, first=1)
    assert plan_of(driver).counts == [8]
    add(driver, "online", 6, first=2)
    plan = plan_of(driver)
    assert (plan.starts, plan.counts) == ([0, 8], [6, 2])


def test_batch_gets_nothing_of_a_step_that_online_fills() -> None:
    driver = make(budget=8)
    add(driver, "batch", 40, first=1)
    driver.step()
    add(driver, "online", 20, first=2)
    plans = [plan_of(driver) for _ in range(3)]
    assert [plan.starts for plan in plans] == [[0], [8], [16, 8]]
    assert plans[-1].counts == [4, 4]


def test_waiting_online_requests_go_before_waiting_batch_ones() -> None:
    driver = make(seqs=1)
    batch = add(driver, "batch", 3, first=1)
    online = add(driver, "online", 3, first=2)
    driver.step()
    assert (online.slot, batch.slot) == (0, NO_SLOT)


def test_an_online_request_takes_the_slot_of_the_newest_batch_sequence() -> None:
    driver = make(seqs=2)
    old, new = add(driver, "batch", 3, first=1), add(driver, "batch", 3, first=2)
    driver.step()
    online = add(driver, "online", 3, first=3)
    plan = plan_of(driver)
    assert plan.counts == [1, 3]
    assert (old.slot, new.slot, online.slot) == (0, NO_SLOT, 1)
    driver.drain()
    assert [sequence.output_ids for sequence in (old, new, online)] == [expected(old), expected(new), expected(online)]


def test_an_online_request_takes_the_blocks_of_as_many_batch_sequences_as_it_needs() -> None:
    driver = make(blocks=12, budget=30)
    batch = [add(driver, "batch", 6, max_tokens=1, first=first) for first in (1, 2, 3)]
    driver.scheduler.schedule()
    online = add(driver, "online", 8, first=4)
    assert driver.scheduler.pool.num_available == 3
    driver.scheduler.schedule()
    assert [sequence.slot == NO_SLOT for sequence in (*batch, online)] == [False, False, True, False]


def test_an_online_sequence_grows_into_the_blocks_of_batch() -> None:
    driver = make(blocks=6, budget=30)
    online = add(driver, "online", 2, max_tokens=7, first=1)
    driver.step()
    batch = add(driver, "batch", 6, max_tokens=4, first=2)
    driver.drain()
    assert driver.scheduler.lanes["online"].num_preemptions == 0
    assert driver.scheduler.lanes["batch"].num_preemptions == 1
    assert (online.output_ids, batch.output_ids) == (expected(online), expected(batch))


def test_an_online_request_begins_in_the_step_in_which_another_one_grows_into_the_blocks_of_batch() -> None:
    driver = make(blocks=9)
    add(driver, "online", 3, max_tokens=4, first=1)
    batch = add(driver, "batch", 12, first=2)
    driver.step()
    driver.step()
    assert (batch.slot, driver.scheduler.pool.num_available) == (1, 0)
    add(driver, "online", 3, first=3)
    assert plan_of(driver).counts == [1, 3]
    assert batch.slot == NO_SLOT


def test_a_batch_sequence_that_cannot_grow_gives_way_itself_and_never_an_online_one() -> None:
    driver = make(blocks=7)
    online = add(driver, "online", 5, max_tokens=4, first=1)
    batch = add(driver, "batch", 6, max_tokens=6, first=2)
    driver.drain()
    assert driver.scheduler.lanes["online"].num_preemptions == 0
    assert driver.scheduler.lanes["batch"].num_preemptions > 0
    assert (online.output_ids, batch.output_ids) == (expected(online), expected(batch))


def test_who_gave_way_does_not_begin_again_in_the_same_step() -> None:
    driver = make(blocks=12, budget=17, is_recurrent=True)
    _, new = (add(driver, "batch", 5, first=first) for first in (1, 2))
    driver.step()
    add(driver, "online", 14, first=3)
    assert plan_of(driver).counts == [1, 14]
    assert new.slot == NO_SLOT


def test_online_and_batch_fill_the_cache_to_its_last_block() -> None:
    driver = make(blocks=12)
    add(driver, "batch", 5, first=1)
    driver.step()
    add(driver, "online", 18, first=2)
    assert plan_of(driver).counts == [1, 18]
    assert driver.scheduler.pool.num_available == 0


def test_a_batch_request_leaves_room_for_online_ones_to_grow() -> None:
    driver = make(blocks=12)
    add(driver, "online", 5, first=1)
    driver.step()
    batch = add(driver, "batch", 18, first=2)
    driver.step()
    assert batch.slot == NO_SLOT


def test_among_online_requests_the_newest_gives_way() -> None:
    driver = make(blocks=6)
    old, new = (add(driver, "online", 3, max_tokens=8, first=first) for first in (1, 2))
    driver.drain()
    assert (old.output_ids, new.output_ids) == (expected(old), expected(new))
    assert driver.scheduler.lanes["online"].num_preemptions > 0


def test_an_online_request_waits_for_other_online_ones_and_no_batch_one_begins_meanwhile() -> None:
    driver = make(seqs=3, blocks=10)
    running = add(driver, "online", 12, max_tokens=2, first=1)
    driver.step()
    waiting, batch = add(driver, "online", 10, first=2), add(driver, "batch", 1, first=3)
    driver.step()
    assert (waiting.slot, batch.slot) == (NO_SLOT, NO_SLOT)
    assert running.is_finished
    driver.step()
    assert waiting.slot != NO_SLOT


@pytest.mark.parametrize("ahead", [1, 2])
def test_batch_sequences_that_gave_way_again_and_again_give_the_same_tokens(ahead: int) -> None:
    driver = make(blocks=14, seqs=3, budget=9, online=5, ahead=ahead)
    batch = [add(driver, "batch", 5 + first, max_tokens=12, first=first) for first in range(4)]
    online: list[Sequence] = []
    for first in range(100, 112):
        driver.step()
        driver.step()
        online.append(add(driver, "online", 4, max_tokens=4, first=first))
    driver.drain()
    assert driver.scheduler.lanes["batch"].num_preemptions > 4
    assert all(sequence.output_ids == expected(sequence) for sequence in batch + online)


@pytest.mark.parametrize("ahead", [1, 2])
def test_blocks_of_both_priorities_are_followed_where_the_pool_moves_them(ahead: int) -> None:
    driver = make(blocks=120, min_density=0.9, ahead=ahead)
    sequences = [
        add(driver, priority, 20, max_tokens=2 + (first * 5) % 30, first=first)
        for first in range(16)
        for priority in PRIORITIES
    ]
    plans = driver.drain()
    assert sum(len(plan.copies) for plan in plans) > 0
    assert all(sequence.output_ids == expected(sequence) for sequence in sequences)


def test_a_token_on_its_way_to_a_sequence_that_gives_way_is_kept() -> None:
    driver = make(seqs=1, ahead=2)
    batch = add(driver, "batch", 3, first=1)
    driver.step()
    add(driver, "online", 3, first=2, max_tokens=1)
    driver.step()
    assert batch.slot == NO_SLOT
    assert batch.output_ids == expected(batch)[:1]
    driver.drain()
    assert batch.output_ids == expected(batch)


def test_what_a_preempted_sequence_computed_is_found_when_it_resumes() -> None:
    driver = make(seqs=1)
    add(driver, "batch", 20, first=1)
    driver.step()
    add(driver, "online", 3, max_tokens=1, first=2)
    driver.step()
    plan = plan_of(driver)
    assert (plan.starts, plan.counts) == ([20], [1])


def test_the_budget_shrinks_while_online_requests_run_and_grows_back() -> None:
    driver = make(budget=16, online=4)
    add(driver, "batch", 100, first=1)
    assert plan_of(driver).num_tokens == 16
    add(driver, "online", 6, max_tokens=2, first=2)
    assert [plan_of(driver).counts for _ in range(3)] == [[4], [2, 2], [1, 3]]
    assert plan_of(driver).num_tokens == 16


def test_aborted_requests_of_both_priorities_give_back_all_they_have() -> None:
    driver = make(seqs=1)
    batch = add(driver, "batch", 3, first=1)
    driver.step()
    online = add(driver, "online", 3, first=2)
    driver.step()
    driver.finish(batch)
    driver.finish(online)
    assert driver.scheduler.pool.num_held == 0
    assert not driver.scheduler.has_work


def test_each_priority_has_its_own_numbers() -> None:
    driver = make(seqs=2)
    add(driver, "batch", 7, max_tokens=2, first=1)
    driver.step()
    aborted = add(driver, "batch", 9, max_tokens=5, first=2)
    driver.step()
    add(driver, "online", 7, max_tokens=4, first=1)
    driver.step()
    driver.finish(aborted)
    batch, online = (driver.scheduler.lanes[priority].stats() for priority in ("batch", "online"))
    assert (batch.num_requests, batch.num_finished, batch.num_aborted, batch.num_running) == (2, 1, 1, 0)
    assert (batch.num_prompt_tokens, batch.num_cached_tokens, batch.num_generated_tokens) == (16, 0, 4)
    assert (online.num_requests, online.num_running, online.num_waiting, online.num_blocks_held) == (1, 1, 0, 4)
    assert (online.num_prompt_tokens, online.num_cached_tokens, online.num_generated_tokens) == (7, 6, 1)


def test_a_block_that_two_sequences_of_a_priority_share_counts_once() -> None:
    driver = make()
    add(driver, "batch", 5)
    add(driver, "batch", 5)
    driver.step()
    assert driver.scheduler.lanes["batch"].stats().num_blocks_held == driver.scheduler.pool.num_held == 4


def test_a_priority_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RequestError, match="priority was 'urgent'; it must be online or batch"):
        add(make(), "urgent", 3)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Event:
    """A request comes, the one at place `aborted` ends if it is there, then some steps run."""

    priority: Priority
    num_prompt: int
    max_tokens: int
    first: int
    aborted: int
    num_steps: int

    def add_to(self, driver: Driver) -> Sequence:
        return add(driver, self.priority, self.num_prompt, max_tokens=self.max_tokens, first=self.first)


EVENTS = st.lists(
    st.builds(
        Event,
        priority=st.sampled_from(PRIORITIES),
        num_prompt=st.integers(1, 20),
        max_tokens=st.integers(1, 8),
        first=st.integers(0, 3),
        aborted=st.integers(0, 60),
        num_steps=st.integers(0, 5),
    ),
    min_size=5,
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(
    events=EVENTS,
    blocks=st.integers(14, 30),
    seqs=st.integers(1, 6),
    budget=st.integers(1, 30),
    part=st.integers(1, 4),
    ahead=st.integers(1, 2),
    is_recurrent=st.booleans(),
)
def test_online_comes_first_and_nobody_loses_a_token(
    events: list[Event], blocks: int, seqs: int, budget: int, part: int, ahead: int, is_recurrent: bool
) -> None:
    """The driver checks every plan."""
    driver = make(
        blocks=blocks, seqs=seqs, budget=budget, online=-(-budget // part), ahead=ahead, is_recurrent=is_recurrent
    )
    sequences: list[Sequence] = []
    for event in events:
        sequences.append(event.add_to(driver))
        for sequence in sequences[event.aborted : event.aborted + 1]:
            driver.finish(sequence)
        for _ in range(event.num_steps):
            driver.step()
    driver.drain()
    assert driver.scheduler.pool.num_held == 0
    for sequence in sequences:
        assert sequence.is_finished
        assert sequence.output_ids == expected(sequence)[: len(sequence.output_ids)]
        assert sequence.finish_reason == "abort" or len(sequence.output_ids) == sequence.request.params.max_tokens
    for priority, lane in driver.scheduler.lanes.items():
        own = [sequence for sequence in sequences if sequence.request.priority == priority]
        assert (lane.num_requests, lane.num_finished + lane.num_aborted) == (len(own), len(own))
        assert lane.num_generated_tokens == sum(len(sequence.output_ids) for sequence in own)


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, blocks=st.integers(14, 30), seqs=st.integers(1, 6), budget=st.integers(1, 30))
def test_online_requests_run_step_by_step_as_if_there_were_no_batch(
    events: list[Event], blocks: int, seqs: int, budget: int
) -> None:
    """But for the prefix cache, which both fill: here nothing is shared."""
    mixed, alone = (make(blocks=blocks, seqs=seqs, budget=budget, is_recurrent=True) for _ in range(2))
    pairs: list[tuple[Sequence, Sequence]] = []
    for event in events:
        sequence = event.add_to(mixed)
        if event.priority == "online":
            pairs.append((sequence, event.add_to(alone)))
        for _ in range(event.num_steps):
            mixed.step()
            alone.step()
            for one, other in pairs:
                assert (one.num_computed, one.num_tokens) == (other.num_computed, other.num_tokens)
