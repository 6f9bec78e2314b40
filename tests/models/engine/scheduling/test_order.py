"""Batch requests that wait are begun by windows, each in the order that shares most: what is found
in the cache is counted, nobody starves, and what is written is what would be anyway."""

import random
from itertools import combinations, count, pairwise

import pytest

from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.order import ordered
from models.engine.scheduling.request import Request, SamplingParams
from models.engine.scheduling.scheduler import Scheduler
from models.engine.scheduling.sequence import Sequence
from tests.helpers.models.engine_reading import Driver, PagedModel, add, drive_at_random, expected

SIZE, WINDOW, TABLE_ROWS = 4, 128, 640
NEVER = 10**6


def make(*, batch_window: int, blocks: int = 60, seqs: int = 4, budget: int = 96, ahead: int = 1) -> Driver:
    scheduler = Scheduler(
        BlockPool(blocks, SIZE),
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        max_model_len=128,
        batch_window=batch_window,
    )
    return Driver(scheduler, PagedModel(SIZE), ahead=ahead)


def sequence(prompt: list[int], *, max_tokens: int = 1) -> Sequence:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    return Sequence(Request(request_id="any", token_ids=tuple(prompt), params=params, seed=0))


def order_of(sequences: list[Sequence], *, cached: tuple[int, ...] = ()) -> list[Sequence]:
    """Of a cache that has the prompts which begin with one of these tokens."""
    return ordered(sequences, block_size=SIZE, num_found=lambda one: SIZE * (one.token_ids[0] in cached))


def table(rng: random.Random) -> list[list[int]]:
    """Shuffled rows of three columns, a prompt each: one of 4 texts of 16 tokens, one of 8 of 16, and
    8 tokens of the row's own."""

    def texts(num: int, length: int) -> list[list[int]]:
        return [[rng.randrange(256) for _ in range(length)] for _ in range(num)]

    firsts, seconds = texts(4, 16), texts(8, 16)
    return [rng.choice(firsts) + rng.choice(seconds) + own for own in texts(TABLE_ROWS, 8)]


def num_cached(prompts: list[list[int]], *, batch_window: int) -> int:
    driver = make(batch_window=batch_window)
    sequences = [add(driver, prompt, max_tokens=2) for prompt in prompts]
    driver.drain()
    assert all(one.output_ids == expected(one) for one in sequences)
    return driver.scheduler.lanes["batch"].num_cached_tokens


def test_a_shuffled_table_reaches_most_of_what_a_global_sort_shares() -> None:
    prompts = table(random.Random(0))
    best = num_cached(sorted(prompts), batch_window=1)
    assert num_cached(prompts, batch_window=WINDOW) >= 0.8 * best
    assert num_cached(prompts, batch_window=1) < 0.7 * best  # the cache is too small for it in the order of the table


def test_prompts_that_begin_alike_are_neighbours() -> None:
    common = [[number] * 8 for number in range(3)]
    prompts = [common[number % 3] + [100 + number] * 4 for number in range(30)]
    order = [one.request.token_ids[0] for one in order_of([sequence(prompt) for prompt in prompts])]
    assert sum(one != other for one, other in pairwise(order)) == 2


def test_prompts_with_nothing_to_choose_between_stay_in_their_order() -> None:
    for numbers in ((5, 3, 9, 1), (3, 3, 3)):
        sequences = [sequence([number] * 9) for number in numbers]
        assert order_of(sequences) == sequences


def test_much_to_compute_and_much_to_write_take_turns() -> None:
    long = [sequence([number] * 40, max_tokens=2) for number in range(8)]
    short = [sequence([100 + number] * 4, max_tokens=20) for number in range(8)]
    order = [one.num_prompt > 10 for one in order_of(long + short)]
    assert all(abs(sum(order[:end]) - end / 2) <= 1 for end in range(len(order)))


def test_what_is_in_the_cache_comes_first() -> None:
    sequences = [sequence([number % 5] * 8 + [number]) for number in range(20)]
    order = [one.token_ids[0] for one in order_of(sequences, cached=(3, 1))]
    assert set(order[:8]) == {1, 3}


@pytest.mark.parametrize("seed", range(20))
def test_every_sequence_has_one_place_in_the_order(seed: int) -> None:
    rng = random.Random(seed)
    jobs = [[rng.randrange(6) for _ in range(rng.randint(1, 30))] for _ in range(3)]
    sequences = [
        sequence(
            rng.choice(jobs)[: rng.randint(1, 30)] + [rng.randrange(6)] * rng.randint(0, 9),
            max_tokens=rng.randint(1, 9),
        )
        for _ in range(rng.randint(0, 60))
    ]
    found = order_of(sequences)
    assert sorted(map(id, found)) == sorted(map(id, sequences))


@pytest.mark.parametrize("seed", range(4))
def test_nobody_waits_for_those_who_come_a_window_later(seed: int) -> None:
    rng = random.Random(seed)
    window = rng.choice([3, 8])
    driver = make(batch_window=window)
    coming = [[rng.randrange(3)] * rng.randint(1, 30) for _ in range(60)]
    sequences: list[Sequence] = []
    begun: list[int] = []  # the steps in which they were, those who came first before others
    for step in count():
        for _ in range(min(len(coming), rng.randint(0, 4))):
            sequences.append(add(driver, coming.pop(), max_tokens=rng.randint(1, 6)))
        if not (coming or driver.scheduler.has_work):
            break
        driver.step()
        begun += [NEVER] * (len(sequences) - len(begun))
        begun = [
            min(before, step) if one.num_cached is not None else NEVER
            for one, before in zip(sequences, begun, strict=True)
        ]
    assert max(begun) < NEVER
    assert max(begun) > 10
    for first, later in combinations(range(len(sequences)), 2):
        assert later - first < window or begun[first] <= begun[later]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_and_goes_windows_change_no_answer(seed: int) -> None:
    rng = random.Random(seed)
    driver = make(batch_window=rng.choice([2, 5, 64]), blocks=rng.choice([40, 200]), ahead=rng.choice([1, 2]))
    drive_at_random(rng, driver, num_steps=400)


def test_a_request_that_is_given_up_before_its_window_leaves() -> None:
    driver = make(batch_window=2, seqs=1)
    sequences = [add(driver, [number] * 9, max_tokens=3) for number in range(6)]
    driver.step()
    driver.finish(sequences[5])
    assert driver.scheduler.lanes["batch"].num_waiting == 4
    driver.drain()
    assert [one.finish_reason for one in sequences] == ["length"] * 5 + ["abort"]


def test_online_requests_keep_their_order() -> None:
    driver = make(batch_window=WINDOW, seqs=1)
    sequences = [add(driver, [number] * 9, max_tokens=2, priority="online") for number in (3, 1, 3, 2, 1)]
    for num_begun in range(1, len(sequences) + 1):
        while sequences[num_begun - 1].num_cached is None:
            driver.step()
        assert all(one.num_cached is None for one in sequences[num_begun:])


def test_what_was_shared_outlives_what_one_sequence_had() -> None:
    pool = BlockPool(8, SIZE)
    common = [1] * SIZE

    def compute(tokens: list[int]) -> None:
        held, prefix = pool.share(tokens).blocks, 0
        for place in range(len(tokens) // SIZE):
            if place == len(held):
                held.append(pool.allocate())
            prefix = pool.register(held[place], prefix, tokens[place * SIZE : (place + 1) * SIZE])
        pool.release(held)
        pool.check_integrity()

    for number in range(2, 30):
        compute(common + [number] * SIZE)
        if number == 3:
            for other in range(100, 120):
                compute([other] * SIZE)
    assert len(pool.find([*common, 0])) == 1
    for other in range(130, 160):  # many of them, each found again
        compute([other] * SIZE)
        compute([other] * SIZE + [other])
    assert not pool.find([*common, 0])
