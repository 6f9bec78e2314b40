"""What requests in flight begin with in common stays while there are such requests, whatever comes
between two of them."""

import random

import pytest

from models.engine.scheduling.beginning import Beginning
from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.scheduler import Scheduler
from models.engine.scheduling.sequence import NO_SLOT
from models.errors import EngineError
from tests.helpers.models.engine_reading import Driver, PagedModel, add, drive_at_random, expected

SIZE = 2
JOB = list(range(100, 109))  # four blocks, and one token more


def make(*, blocks: int = 24, seqs: int = 8, budget: int = 64, ahead: int = 1, min_density: float = 0.0) -> Driver:
    scheduler = Scheduler(
        BlockPool(blocks, SIZE, min_density=min_density),
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        max_model_len=128,
    )
    return Driver(scheduler, PagedModel(SIZE), ahead=ahead)


def crowd(driver: Driver) -> None:
    """Requests of another kind that take 20 of 24 blocks each, online, so that they go first."""
    for token in (1, 2):
        add(driver, [token] * 38, priority="online")
        while driver.scheduler.lanes["online"].has_work:
            driver.step()


def test_a_beginning_is_what_all_have_in_common_in_whole_blocks() -> None:
    beginning = Beginning(token_ids=(1, 2, 3, 4, 5, 6), block_size=2)
    beginning.meet((1, 2, 3, 4, 5, 6, 7, 8))
    assert beginning.num_blocks == 3
    beginning.meet((1, 2, 3, 9, 5, 6))
    assert beginning.token_ids == (1, 2)
    beginning.meet((1, 2))
    assert beginning.num_blocks == 1


def test_the_beginning_of_a_job_stays_while_requests_of_it_wait() -> None:
    driver = make(seqs=1)
    first, second = add(driver, [*JOB, 1]), add(driver, [*JOB, 2])
    driver.step()
    assert first.is_finished
    assert driver.scheduler.pool.num_held == 4
    crowd(driver)
    driver.drain()
    assert second.num_cached == 8


def test_with_the_last_request_of_a_job_its_beginning_may_go() -> None:
    driver = make(seqs=1)
    add(driver, [*JOB, 1])
    add(driver, [*JOB, 2])
    driver.drain()
    assert driver.scheduler.pool.num_held == 0
    add(driver, [1] * 47)  # which takes all blocks
    driver.drain()
    late = add(driver, [*JOB, 3])
    driver.drain()
    assert late.num_cached == 0


def test_a_request_alone_holds_nothing_for_others() -> None:
    driver = make(seqs=1)
    add(driver, [*JOB, 1])
    driver.step()
    assert driver.scheduler.pool.num_held == 0


def test_a_request_that_begins_otherwise_lets_go_of_what_it_has_not() -> None:
    driver = make(seqs=1)
    for tail in (1, 2):
        add(driver, [*JOB, tail])
    driver.step()
    assert driver.scheduler.pool.num_held == 4
    add(driver, [*JOB[:4], 7, 7, 7])
    driver.step()
    assert driver.scheduler.pool.num_held == 2
    driver.drain()


def test_a_request_that_could_not_be_served_otherwise_takes_the_place_of_a_beginning() -> None:
    driver = make(seqs=1, blocks=20)
    add(driver, [*JOB, 1])
    waiting = add(driver, [*JOB, 2])
    driver.step()
    assert driver.scheduler.pool.num_available == 16
    large = add(driver, [1] * 37, max_tokens=2, priority="online")
    driver.drain()
    assert (large.output_ids, waiting.output_ids) == (expected(large), expected(waiting))


def test_one_that_runs_alone_grows_into_the_place_of_a_beginning() -> None:
    driver = make(seqs=1, blocks=20)
    add(driver, [*JOB, 1])
    waiting = add(driver, [*JOB, 2])
    driver.step()
    large = add(driver, [1] * 30, max_tokens=9, priority="online")
    driver.drain()
    assert driver.scheduler.lanes["online"].num_preemptions == 0
    assert (large.output_ids, waiting.output_ids) == (expected(large), expected(waiting))


def test_no_more_than_half_of_the_pool_is_held() -> None:
    driver = make(seqs=1, blocks=7)
    add(driver, [*JOB, 1])
    add(driver, [*JOB, 2])
    driver.step()
    assert driver.scheduler.pool.num_held == 0
    driver.drain()


def test_given_up_requests_do_not_keep_a_beginning() -> None:
    driver = make(seqs=1)
    sequences = [add(driver, [*JOB, tail]) for tail in (1, 2, 3)]
    driver.step()
    for sequence in sequences:
        driver.finish(sequence)
    assert driver.scheduler.pool.num_held == 0
    assert all(sequence.slot == NO_SLOT for sequence in sequences)


def test_a_block_that_is_held_too_often_is_found() -> None:
    pool = BlockPool(4, SIZE)
    block = pool.allocate()
    pool.check_holders([block])
    with pytest.raises(EngineError, match=r"1 blocks are held more or less often .* block 0 1 times for 2 uses"):
        pool.check_holders([block, block])


def test_whatever_comes_ends_or_gives_way_every_block_has_its_holders_and_answers_are_those_without_a_cache() -> None:
    assert sum(num_held_for_those_to_come(seed) for seed in range(12)) > 0


def num_held_for_those_to_come(seed: int) -> int:
    """Checks 500 steps, of which the driver compares holds with holders after every one."""
    rng = random.Random(seed)
    driver = make(
        blocks=rng.choice([40, 55, 90]),
        seqs=rng.randint(1, 6),
        budget=rng.choice([1, 3, 7, 16, 40]),
        ahead=rng.choice([1, 2]),
        min_density=rng.choice([0.0, 0.6]),
    )
    pool, num_held = driver.scheduler.pool, 0

    def count() -> None:
        nonlocal num_held
        running = {block for sequence in driver.scheduler.running for block in sequence.blocks}
        num_held += pool.num_held - len(running)

    drive_at_random(rng, driver, num_steps=500, after_step=count)
    return num_held
