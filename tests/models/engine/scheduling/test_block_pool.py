"""The block pool: holding, sharing and forgetting pages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engine.scheduling.block_pool import NO_PREFIX, BlockPool
from models.errors import EngineError


def filled(pool: BlockPool, tokens: list[int]) -> list[int]:
    """Blocks that hold `tokens`, all full ones findable."""
    blocks = [pool.allocate() for _ in range(-(-len(tokens) // pool.block_size))]
    prefix = NO_PREFIX
    for place in range(len(tokens) // pool.block_size):
        size = pool.block_size
        prefix = pool.register(blocks[place], prefix, tokens[place * size : (place + 1) * size])
    return blocks


def test_low_numbers_are_handed_out_first_and_again_after_release() -> None:
    pool = BlockPool(4, 2)
    blocks = [pool.allocate() for _ in range(3)]
    assert blocks == [0, 1, 2]
    pool.release([1])
    assert pool.allocate() == 1


def test_an_empty_pool_says_so() -> None:
    pool = BlockPool(1, 2)
    pool.allocate()
    with pytest.raises(EngineError, match="empty"):
        pool.allocate()


def test_a_prefix_is_found_by_its_exact_tokens_while_held_and_after_release() -> None:
    pool = BlockPool(8, 2)
    blocks = filled(pool, [1, 2, 3, 4, 5])
    assert pool.share([1, 2, 3, 4, 9]).blocks == blocks[:2]
    assert pool.share([1, 2, 9, 4, 5]).blocks == blocks[:1]
    assert pool.share([9, 2, 3]).blocks == []
    for hold in (blocks, blocks[:2], blocks[:1]):
        pool.release(hold)
    assert pool.num_held == 0
    assert pool.share([1, 2, 3, 4, 9]).blocks == blocks[:2]


def test_the_same_tokens_after_another_prefix_are_another_block() -> None:
    pool = BlockPool(8, 2)
    filled(pool, [1, 2, 7, 8])
    assert pool.share([3, 4, 7, 8, 9]).blocks == []


def test_one_token_is_always_left_to_compute() -> None:
    pool = BlockPool(8, 2)
    blocks = filled(pool, [1, 2, 3, 4])
    assert pool.share([1, 2, 3, 4]).blocks == blocks[:1]
    assert pool.share([1, 2]).blocks == []


def test_idle_blocks_are_taken_when_nothing_is_free_the_least_recently_released_first() -> None:
    pool = BlockPool(3, 2)
    pool.release(filled(pool, [1, 2]))
    pool.release(filled(pool, [3, 4]))
    pool.release(filled(pool, [5, 6]))
    assert pool.num_available == 3
    pool.allocate()
    assert pool.share([1, 2, 0]).blocks == []
    assert pool.share([3, 4, 0]).blocks != []


def test_the_end_of_a_sequence_is_forgotten_before_its_beginning() -> None:
    pool = BlockPool(2, 2)
    pool.release(filled(pool, [1, 2, 3, 4]))
    pool.allocate()
    assert len(pool.share([1, 2, 3, 4, 5]).blocks) == 1


def test_idle_blocks_beyond_their_share_are_freed() -> None:
    pool = BlockPool(400, 1, min_density=0.5)
    pool.release(filled(pool, list(range(300))))
    pool.check_integrity()
    assert len(pool.share([*range(300), 0]).blocks) == 100


def test_a_sparse_pool_is_compacted_and_its_prefixes_are_still_found() -> None:
    pool = BlockPool(200, 1, min_density=0.6)
    gone = filled(pool, list(range(100)))
    kept = filled(pool, list(range(500, 550)))
    pool.release(gone)
    moves = pool.compact()
    pool.check_integrity()
    assert sorted(moves.get(block, block) for block in kept) == list(range(50))
    assert pool.share([*range(500, 550), 0]).blocks == [moves.get(block, block) for block in kept]
    assert pool.share([*range(100)]).blocks == [moves.get(block, block) for block in gone[:50]]
    pool.check_integrity()


def test_a_pool_that_was_compacted_is_dense_and_gives_low_places_out() -> None:
    pool = BlockPool(200, 1, min_density=0.6)
    gone, kept = filled(pool, list(range(100))), filled(pool, list(range(500, 550)))
    pool.release(gone)
    moves = pool.compact()
    assert len(set(moves.values())) == len(moves)
    assert pool.compact() == {}
    idle = {moves.get(block, block) for block in gone[:50]}
    assert pool.allocate() == min(set(range(50, 200)) - idle)
    pool.release([moves.get(block, block) for block in kept])
    pool.check_integrity()


def test_a_compaction_moves_idle_blocks_away_and_the_oldest_is_still_forgotten_first() -> None:
    pool = BlockPool(100, 1, min_density=0.6)
    idle = [filled(pool, [token]) for token in (1, 2, 3)]
    plain, kept = [pool.allocate() for _ in range(60)], [pool.allocate() for _ in range(20)]
    for blocks in (*idle, plain):
        pool.release(blocks)
    moves = pool.compact()
    assert {moves[block] for [block] in idle} <= set(kept)
    while pool.num_available > 2:
        pool.allocate()
    assert [pool.share([token, 0]).blocks != [] for token in (1, 2, 3)] == [False, True, True]


def test_a_dense_pool_and_one_without_a_density_stay_as_they_are() -> None:
    dense, free = BlockPool(200, 1, min_density=0.6), BlockPool(200, 1)
    for pool, released in ((dense, 20), (free, 90)):
        blocks = filled(pool, list(range(100)))
        pool.release(blocks[:released])
        assert pool.compact() == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), max_size=40), st.sampled_from([0.0, 0.6]))
def test_the_pool_adds_up_whatever_happens(steps: list[tuple[int, int]], density: float) -> None:
    pool = BlockPool(16, 2, min_density=density)
    live: list[list[int]] = []
    for kind, length in steps:
        tokens = [length % 3] * length
        if kind == 0 and live:
            pool.release(live.pop(0))
        else:
            match = pool.share(tokens) if kind > 1 else None
            blocks = match.blocks if match else []
            needed = -(-length // 2) - len(blocks)
            if pool.num_available < needed:
                pool.release(blocks)
                continue
            prefix, first = (match.prefix if match else NO_PREFIX), len(blocks)
            blocks += [pool.allocate() for _ in range(needed)]
            for place in range(first, length // 2):
                prefix = pool.register(blocks[place], prefix, tokens[place * 2 : place * 2 + 2])
            live.append(blocks)
        pool.check_integrity()
    for blocks in live:
        pool.release(blocks)
    pool.check_integrity()
    assert pool.num_available == 16


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(0, 2)), max_size=60))
def test_what_is_found_is_what_was_written_wherever_it_was_moved(steps: list[tuple[int, int, int]]) -> None:
    """`written` stands for the cache: blocks' tokens, copied as the pool says."""
    pool = BlockPool(120, 1, min_density=0.6)
    live: list[list[int]] = []
    written: dict[int, int] = {}
    for kind, length, start in steps:
        if kind == 0 and live:
            pool.release(live.pop(length % len(live)))
        else:
            tokens = list(range(start, start + length))
            match = pool.share(tokens)
            assert [written[block] for block in match.blocks] == tokens[: len(match.blocks)]
            if pool.num_available < length - len(match.blocks):
                pool.release(match.blocks)
                continue
            blocks, prefix = match.blocks, match.prefix
            for token in tokens[len(blocks) :]:
                blocks.append(pool.allocate())
                written[blocks[-1]] = token
                prefix = pool.register(blocks[-1], prefix, [token])
            live.append(blocks)
        moves = pool.compact()
        written |= {new: written[old] for old, new in moves.items() if old in written}
        live = [[moves.get(block, block) for block in blocks] for blocks in live]
        pool.check_integrity()
        assert pool.num_held == len({block for blocks in live for block in blocks})
