"""States that are kept at the ends of prefixes: which rows they have, what goes on from them, and
that nothing is lost however requests come, end and give way. The network is one of integers that
has blocks, states and rows."""

import random

import pytest

from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.plan import StepPlan
from models.engine.scheduling.scheduler import Scheduler
from models.engine.scheduling.sequence import Sequence
from models.engine.scheduling.snapshots import Snapshots
from models.engine.scheduling.states import KeptStates
from models.errors import EngineError
from tests.helpers.models.engine_reading import Driver, HybridModel, add, drive_at_random, expected

SIZE, CHUNK = 2, 4


def make(
    *,
    rows: int = 8,
    stride: int = 4,
    blocks: int = 64,
    seqs: int = 8,
    budget: int = 64,
    ahead: int = 1,
    min_density: float = 0.0,
) -> Driver:
    states = KeptStates(Snapshots(rows), block_size=SIZE, chunk=CHUNK, stride=stride)
    scheduler = Scheduler(
        BlockPool(blocks, SIZE, min_density=min_density, on_forget=states.snapshots.forget),
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        max_model_len=128,
        states=states,
    )
    return Driver(scheduler, HybridModel(SIZE), ahead=ahead, chunk=CHUNK)


def plan_of(driver: Driver) -> StepPlan:
    plan = driver.step()
    assert plan is not None
    return plan


def assert_answers(driver: Driver, *sequences: Sequence) -> None:
    driver.drain()
    assert [sequence.output_ids for sequence in sequences] == [expected(sequence) for sequence in sequences]


def test_states_are_kept_every_stride_and_a_longer_prompt_goes_on_from_the_last() -> None:
    driver = make(stride=4)
    add(driver, list(range(19)))
    plan = plan_of(driver)
    assert [(end, row) for _, end, row in plan.kept] == [(8, 0), (16, 1)]
    driver.drain()
    again = add(driver, [*range(17), 99])
    plan = plan_of(driver)
    assert (plan.starts, plan.counts, plan.resumed) == ([16], [2], [(1, plan.slots[0])])
    assert again.num_cached == 16
    assert_answers(driver, again)


def test_a_stride_is_rounded_up_to_whole_chunks() -> None:
    driver = make(stride=3)
    add(driver, list(range(30)))
    assert [end for _, end, _ in plan_of(driver).kept] == [8, 16, 24]


def test_a_state_is_kept_where_a_prompt_parts_from_an_earlier_one() -> None:
    driver = make(stride=100)
    for tail in (50, 60, 70):
        add(driver, [*range(13), tail, tail, tail])
        driver.drain()
    parted = add(driver, [*range(13), 80, 80, 80])
    driver.drain()
    assert parted.num_cached == 12


def test_the_end_of_what_waiting_requests_have_in_common_is_kept_by_the_first_and_the_others_wait_for_it() -> None:
    driver = make(stride=100)
    sequences = [add(driver, [*range(13), tail, tail]) for tail in (50, 60, 70)]
    first, second = plan_of(driver), plan_of(driver)
    assert (first.counts, [end for _, end, _ in first.kept]) == ([15], [12])
    assert (second.starts, second.counts) == ([12, 12], [3, 3])
    assert [sequence.num_cached for sequence in sequences] == [0, 12, 12]
    assert_answers(driver, *sequences)


def test_those_that_wait_let_others_go_first_and_keep_their_order() -> None:
    driver = make(stride=100)
    shared = [add(driver, [*range(13), tail, tail], max_tokens=3) for tail in (50, 60, 70)]
    other = add(driver, [40, 41, 42], max_tokens=3)
    plan_of(driver)
    assert [sequence.slot >= 0 for sequence in (*shared, other)] == [True, False, False, True]
    assert list(driver.scheduler.lanes["batch"].waiting) == shared[1:]
    assert_answers(driver, *shared, other)


def test_an_online_request_does_not_wait_for_what_a_step_computes() -> None:
    driver = make(stride=100)
    sequences = [add(driver, [*range(13), tail, tail], priority="online") for tail in (50, 60)]
    assert plan_of(driver).counts == [15, 15]
    assert_answers(driver, *sequences)


def test_prompts_are_cut_between_chunks() -> None:
    driver = make(budget=10, stride=100)
    sequences = [add(driver, [first, *range(1, 15)]) for first in (50, 60)]
    plans = driver.drain()
    assert [list(zip(plan.starts, plan.counts, strict=True)) for plan in plans] == [
        [(0, 8), (0, 2)], [(8, 7), (2, 2)], [(4, 8)], [(12, 3)],
    ]  # fmt: skip
    assert_answers(driver, *sequences)


def test_the_tokens_of_answers_are_not_shared() -> None:
    driver = make(stride=2)
    first = add(driver, list(range(9)), max_tokens=20)
    driver.drain()
    later = add(driver, [*range(9), *first.output_ids])
    driver.drain()
    assert later.num_cached == 8


def test_the_state_that_was_used_least_recently_gives_way() -> None:
    driver = make(rows=2, stride=2)
    for first in (10, 20):
        add(driver, [first, 1, 2, 3, 4])
        driver.drain()
    used = add(driver, [10, 1, 2, 3, 5])
    driver.drain()
    add(driver, [30, 1, 2, 3, 4])
    driver.drain()
    again, gone = add(driver, [10, 1, 2, 3, 6]), add(driver, [20, 1, 2, 3, 6])
    driver.drain()
    assert [sequence.num_cached for sequence in (used, again, gone)] == [4, 4, 0]


def test_a_state_whose_blocks_are_forgotten_is_forgotten_with_them() -> None:
    driver = make(rows=4, stride=2, blocks=6)
    add(driver, list(range(9)))
    driver.drain()
    snapshots = driver.scheduler._tables._states.snapshots  # type: ignore[union-attr]
    assert snapshots.num_used == 2
    add(driver, list(range(50, 61)))
    driver.drain()
    assert snapshots.num_used == 2  # those of the second prompt, at 4 and 8
    add(driver, list(range(9)))
    assert plan_of(driver).resumed == []
    driver.drain()


def test_the_state_of_a_jobs_beginning_outlives_what_its_long_rows_leave() -> None:
    driver = make(rows=3, stride=2, seqs=1, blocks=200)
    rows = [add(driver, [*range(9), *[row + 50] * 40]) for row in range(4)]
    driver.drain()
    assert [sequence.num_cached for sequence in rows] == [0, 8, 8, 8]


def test_without_a_row_nothing_is_kept_and_nothing_found() -> None:
    driver = make(rows=0, stride=2)
    sequences = [add(driver, [*range(13), tail]) for tail in (50, 60)]
    assert_answers(driver, *sequences)
    assert [sequence.num_cached for sequence in sequences] == [0, 0]


def test_rows_that_do_not_add_up_are_found() -> None:
    snapshots = Snapshots(2)
    snapshots.take(7)
    snapshots.end_step()
    snapshots.check_integrity({7})
    with pytest.raises(EngineError, match="1 of prefixes that have no blocks"):
        snapshots.check_integrity({8})
    snapshots._free.append(0)
    with pytest.raises(EngineError, match=r"2 rows free .* 1 used of 2"):
        snapshots.check_integrity({7})


def test_a_row_is_not_given_to_two_prefixes_in_one_step() -> None:
    snapshots = Snapshots(1)
    assert snapshots.take(7) == 0
    snapshots.forget(7)
    assert snapshots.take(8) is None
    snapshots.end_step()
    assert snapshots.take(8) == 0


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_ends_or_gives_way_no_block_or_row_is_lost_and_answers_are_those_without_a_cache(
    seed: int,
) -> None:
    """Some 500 steps each; the driver checks the holders of every block and row after every
    one."""
    rng = random.Random(seed)
    driver = make(
        rows=rng.choice([1, 2, 3, 8]),
        stride=rng.choice([1, 2, 5, 50]),
        blocks=rng.choice([40, 55, 90]),
        seqs=rng.randint(1, 6),
        budget=rng.choice([1, 3, 7, 16, 40]),
        ahead=rng.choice([1, 2]),
        min_density=rng.choice([0.0, 0.6]),
    )
    sequences = drive_at_random(rng, driver, num_steps=500)
    assert sum(sequence.num_cached or 0 for sequence in sequences) > 0
