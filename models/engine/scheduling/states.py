"""Where the recurrent states of a sequence are kept, so that another one that begins alike goes on
from there.

Integers only. A block holds keys and values of its tokens, but a state is that of all tokens
before: a prefix is of use only with the state at its end. States are kept every `stride` tokens,
where a prompt parts from what was computed before, and where it parts from the requests in flight
that begin alike; always between two chunks of the scan, so that what goes on from a state computes
the very chunks of what began at the first token.

The tokens of answers are not shared: a step size may depend on whether its token was given
(`mamba_dt_clamp`).
"""

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq

from models.engine.scheduling.sequence import Sequence
from models.engine.scheduling.snapshots import Snapshots
from models.engine.scheduling.step import Step


class KeptStates:
    """The policy over `snapshots`. `chunk` is the width of the scan's chunks, in tokens; `stride`
    blocks of `block_size` tokens lie between states that are kept whatever comes, or as few more
    as make whole chunks."""

    def __init__(self, snapshots: Snapshots, *, block_size: int, chunk: int, stride: int) -> None:
        self.snapshots, self._chunk = snapshots, chunk
        self._block_size, self._unit = block_size, math.lcm(block_size, chunk)
        self._stride = -(-stride * block_size // self._unit) * self._unit

    def cut(self, start: int, count: int, num_left: int) -> int:
        """How many of `count` tokens from `start` on a step computes of the `num_left` that a
        sequence lacks, so that it is computed in whole chunks wherever that can be."""
        end, begun = start + count, start % self._chunk
        if begun:
            return min(end, start - begun + self._chunk) - start
        if count < num_left and end - end % self._chunk > start:
            return count - end % self._chunk
        return count

    def usable(self, prefixes: Seq[int]) -> int:
        """How many of the blocks that end with these prefixes lead up to the last state that can
        be read now."""
        return _last(prefixes, self.snapshots.has)

    def is_on_its_way(self, prefixes: Seq[int]) -> bool:
        """Whether the step that is planned leaves a state further on than any that can be read
        now."""
        return _last(prefixes, self.snapshots.is_written) > self.usable(prefixes)

    def common_end(self, num_blocks: int) -> int:
        """How many of so many first blocks come before the last place where a state may be
        kept."""
        return num_blocks * self._block_size // self._unit * self._unit // self._block_size

    def resume(self, sequence: Sequence, step: Step) -> None:
        """Has a sequence that was just given its slot begin with the state of the prefix it
        shares."""
        if sequence.blocks:
            step.resumed.append((self.snapshots.use(sequence.prefix), sequence.slot))

    def keep(self, sequence: Sequence, start: int, reached: Seq[tuple[int, int]], step: Step) -> None:
        """Has the step keep states of a sequence whose share of it begins at `start`. `reached`
        are the places in it, in tokens, at which prefixes end that can be found from now on, and
        their numbers."""
        for position, prefix in reached:
            is_between_chunks = position == sequence.num_computed or (position - start) % self._chunk == 0
            if is_between_chunks and self._is_wanted(sequence, position):
                row = self.snapshots.take(prefix)
                if row is not None:
                    step.kept.append((sequence.slot, position, row))

    def _is_wanted(self, sequence: Sequence, position: int) -> bool:
        if position % self._unit:
            return False
        place = position // self._block_size
        ends = {self.common_end(sequence.num_found)}
        if sequence.beginning is not None and sequence.beginning.is_common:
            ends.add(self.common_end(sequence.beginning.num_blocks))
        return position % self._stride == 0 or place in ends


def _last(prefixes: Seq[int], is_one: Callable[[int], bool]) -> int:
    """The place after the last prefix that is one, 0 if there is none."""
    return next((place for place in range(len(prefixes), 0, -1) if is_one(prefixes[place - 1])), 0)
