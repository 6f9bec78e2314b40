"""Which blocks a sequence holds: its block table follows its counters, and what it has computed is made findable.

Integers only. Who gets a share of a step, and who has to give back its blocks, is the scheduler's business.
"""

from collections.abc import Iterable

from models.engine.scheduling.beginnings import Beginnings
from models.engine.scheduling.block_pool import NO_PREFIX, BlockPool
from models.engine.scheduling.request import Request
from models.engine.scheduling.sequence import NO_BLOCK, Sequence
from models.engine.scheduling.states import KeptStates
from models.engine.scheduling.step import Step


class BlockTables:
    """The tables of all sequences, over one pool.

    `window` is the largest number of keys that any layer sees, None for all;
    `max_num_batched_tokens` the most that a step adds to a sequence. `states` are those of a
    network whose blocks are of use with the state at their end alone.
    """

    def __init__(
        self, pool: BlockPool, *, window: int | None, max_num_batched_tokens: int, states: KeptStates | None
    ) -> None:
        self._pool, self._window, self._max_num_batched_tokens = pool, window, max_num_batched_tokens
        self._states, self._beginnings = states, Beginnings(pool, states)

    def new_sequence(self, request: Request) -> Sequence:
        """A sequence for a request that came, which is among those in flight until `leave`."""
        return Sequence(request, self._beginnings.join(request))

    def leave(self, sequence: Sequence) -> None:
        """The request of a sequence is answered, or given up."""
        self._beginnings.leave(sequence.beginning)

    def most_blocks(self, num_tokens: int) -> int:
        """Blocks that a sequence of this many tokens holds at most at a time."""
        most = self._blocks_for(num_tokens)
        if self._window is not None:
            most = min(most, self._blocks_for(self._window + self._max_num_batched_tokens) + 1)
        return most

    def share(self, sequence: Sequence) -> None:
        """Begins a sequence's table with the blocks that hold its prefix already, computed in its rope regime."""
        sequence.prefix, sequence.num_found = _root(sequence.regime), 0
        if sequence.request.params.prompt_logprobs is None:
            usable = len if self._states is None else self._states.usable
            match = self._pool.share(sequence.token_ids, sequence.prefix, usable)
            sequence.blocks, sequence.prefix, sequence.num_found = match.blocks, match.prefix, match.num_found
        sequence.num_registered = len(sequence.blocks)
        sequence.num_computed = sequence.num_registered * self._pool.block_size
        self._pin(sequence, 0)

    def num_found(self, sequence: Sequence) -> int:
        """How many of a sequence's first tokens are in blocks that are known."""
        return len(self._pool.find(sequence.token_ids, _root(sequence.regime))) * self._pool.block_size

    def is_on_its_way(self, sequence: Sequence) -> bool:
        """Whether more of a sequence's beginning can be shared in the next step than in the one
        that is planned."""
        if self._states is None or not self._states.snapshots.is_writing:
            return False
        blocks = self._pool.find(sequence.token_ids, _root(sequence.regime))
        return self._states.is_on_its_way([self._pool.prefix_of(block) for block in blocks])

    def cut(self, sequence: Sequence, budget: int) -> int:
        """How many of the tokens that a sequence lacks a step computes, if it has room for so
        many."""
        num_left = sequence.num_tokens - sequence.num_computed
        count = min(num_left, budget)
        return count if self._states is None else self._states.cut(sequence.num_computed, count, num_left)

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

    def admit(self, sequence: Sequence, step: Step) -> None:
        """Tells the step of a sequence that takes its slot, and of all that it shares."""
        step.admit(sequence)
        if self._states is not None:
            self._states.resume(sequence, step)

    def compute(self, sequence: Sequence, count: int, step: Step) -> int:
        """Moves a sequence on by the tokens that a step computes, which can be found from now on.
        Returns the first one's place."""
        start = sequence.num_computed
        sequence.num_computed += count
        reached = self.register(sequence)
        if self._states is not None:
            self._states.keep(sequence, start, reached, step)
        return start

    def register(self, sequence: Sequence) -> list[tuple[int, int]]:
        """Makes the full blocks whose tokens are known findable by their prefix; where there are
        states, those of the prompt alone. Returns the places in the sequence where these blocks
        end, and the prefixes' numbers."""
        size = self._pool.block_size
        known = len(sequence.token_ids) if self._states is None else sequence.num_prompt
        full = min(sequence.num_computed, known) // size
        before, reached = sequence.num_registered, []
        for place in range(before, full):
            tokens = sequence.token_ids[place * size : (place + 1) * size]
            sequence.prefix = self._pool.register(sequence.blocks[place], sequence.prefix, tokens)
            reached.append(((place + 1) * size, sequence.prefix))
        if reached:
            sequence.num_registered = full
            self._pin(sequence, before)
        return reached

    def unpin(self) -> bool:
        """Lets go of what is held for requests in flight beside the sequences' own blocks. Returns
        whether there was any."""
        return self._beginnings.unpin()

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
            self._beginnings.rename(moves)
            for sequence in sequences:
                for place, block in enumerate(sequence.blocks):
                    if block in moves:
                        sequence.blocks[place] = moves[block]
                        step.new_blocks.append((sequence.slot, place, moves[block]))
        return list(moves.items())

    def end_step(self) -> None:
        """The step is planned: what it leaves can be shared from the next one on."""
        if self._states is not None:
            self._states.snapshots.end_step()

    def check_integrity(self, running: Iterable[Sequence]) -> None:
        """Every block is held once for each running sequence and each common beginning that has
        it, and no kept state is one of blocks that are gone.

        Raises:
            EngineError: it is not so.
        """
        self._pool.check_integrity()
        used = [block for sequence in running for block in sequence.blocks if block != NO_BLOCK]
        self._pool.check_holders([*used, *self._beginnings.held])
        if self._states is not None:
            self._states.snapshots.check_integrity(self._pool.prefixes)

    def _pin(self, sequence: Sequence, num_before: int) -> None:
        """Holds what a sequence has in common with others once it has all of it, where it had so
        many blocks before."""
        beginning = sequence.beginning
        if beginning is not None and num_before < beginning.num_blocks <= sequence.num_registered:
            self._beginnings.pin(beginning, _root(sequence.regime))

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._pool.block_size)


def _root(regime: int) -> int:
    """The prefix number that stands before the first block of a sequence: what is cached in one regime is not found in
    another."""
    return NO_PREFIX - regime
