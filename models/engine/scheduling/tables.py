"""Which blocks a sequence holds: its block table follows its counters, and what it has computed is made findable.

Integers only. Who gets a share of a step, and who has to give back its blocks, is the scheduler's business.
"""

from collections.abc import Iterable

from models.engine.scheduling.block_pool import NO_PREFIX, BlockPool
from models.engine.scheduling.sequence import NO_BLOCK, Sequence
from models.engine.scheduling.step import Step


class BlockTables:
    """The tables of all sequences, over one pool.

    `window` is the largest number of keys that any layer sees, None for all; `max_num_batched_tokens` the most that a
    step adds to a sequence.
    """

    def __init__(self, pool: BlockPool, *, window: int | None, max_num_batched_tokens: int) -> None:
        self._pool, self._window, self._max_num_batched_tokens = pool, window, max_num_batched_tokens

    def most_blocks(self, num_tokens: int) -> int:
        """Blocks that a sequence of this many tokens holds at most at a time."""
        most = self._blocks_for(num_tokens)
        if self._window is not None:
            most = min(most, self._blocks_for(self._window + self._max_num_batched_tokens) + 1)
        return most

    def share(self, sequence: Sequence) -> None:
        """Begins a sequence's table with the blocks that hold its prefix already, computed in its rope regime."""
        sequence.prefix = _root(sequence.regime)
        if sequence.request.params.prompt_logprobs is None:
            match = self._pool.share(sequence.token_ids, sequence.prefix)
            sequence.blocks, sequence.prefix = match.blocks, match.prefix
        sequence.num_registered = len(sequence.blocks)
        sequence.num_computed = sequence.num_registered * self._pool.block_size

    def num_missing(self, sequence: Sequence, count: int) -> int:
        """Blocks that a sequence needs more to compute its next `count` tokens."""
        return self._blocks_for(sequence.num_computed + count) - len(sequence.blocks)

    def extend(self, sequence: Sequence, needed: int, step: Step) -> None:
        """Gives a sequence so many more blocks, and tells the step."""
        for _ in range(needed):
            block = self._pool.allocate()
            step.new_blocks.append((sequence.slot, len(sequence.blocks), block))
            step.fresh_blocks.append(block)
            sequence.blocks.append(block)

    def register(self, sequence: Sequence) -> None:
        """Makes the full blocks whose tokens are known findable by their prefix."""
        size = self._pool.block_size
        full = min(sequence.num_computed, len(sequence.token_ids)) // size
        for place in range(sequence.num_registered, full):
            tokens = sequence.token_ids[place * size : (place + 1) * size]
            sequence.prefix = self._pool.register(sequence.blocks[place], sequence.prefix, tokens)
        sequence.num_registered = max(full, sequence.num_registered)

    def drop_unseen(self, sequence: Sequence) -> None:
        """Gives back the blocks that neither the next token nor a later one sees."""
        if self._window is None:
            return
        unseen = max(0, sequence.num_computed + 1 - self._window) // self._pool.block_size
        last = min(unseen, sequence.num_registered)
        first = next((place for place in range(last - 1, -1, -1) if sequence.blocks[place] == NO_BLOCK), -1) + 1
        self._pool.release(sequence.blocks[first:last])
        sequence.blocks[first:last] = [NO_BLOCK] * (last - first)

    def forget(self, sequence: Sequence) -> None:
        """Gives back all that is computed of a sequence."""
        self._pool.release([block for block in sequence.blocks if block != NO_BLOCK])
        sequence.blocks = []
        sequence.num_computed, sequence.num_registered, sequence.prefix = 0, 0, NO_PREFIX

    def compact(self, sequences: Iterable[Sequence], step: Step) -> list[tuple[int, int]]:
        """Lets the pool move blocks, which the running sequences' tables and the ranks follow. Returns the moves, (from,
        to)."""
        moves = self._pool.compact()
        if moves:
            for sequence in sequences:
                for place, block in enumerate(sequence.blocks):
                    if block in moves:
                        sequence.blocks[place] = moves[block]
                        step.new_blocks.append((sequence.slot, place, moves[block]))
        return list(moves.items())

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._pool.block_size)


def _root(regime: int) -> int:
    """The prefix number that stands before the first block of a sequence: what is cached in one regime is not found in
    another."""
    return NO_PREFIX - regime
