"""The block pool: which pages of the KV cache are held by whom, and which computed prefixes can be shared.

A block is free, held (by one or more sequences), or idle: held by nobody, its content kept because its prefix may be
asked for again. Full blocks are found by the exact tokens that lead up to their end. Integers only; the tensors live
in `caches`.
"""

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import EngineError

Prefix = tuple[int, tuple[int, ...]]
"""What a full block holds: the number of the prefix before it (0: none), and its own tokens."""

NO_PREFIX = 0
MIN_IDLE_BLOCKS = 32  # are always allowed where idle blocks are limited
MAX_IDLE_FRACTION = 0.05  # of the held ones


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixMatch:
    """The longest shared prefix found: its blocks, and the prefix number at its end."""

    blocks: list[int]
    prefix: int


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens.

    Blocks with low numbers are handed out first. `min_density` is for an attention backend that walks the used part of
    the pool as a whole: at least that part of it is kept held, by keeping few blocks idle and by `compact`. 0 leaves
    blocks where they are, and idle ones for as long as there is room. `shares_prefixes` False is for a network whose
    recurrent states no block holds: no prefix is ever found.
    """

    def __init__(
        self, num_blocks: int, block_size: int, *, min_density: float = 0.0, shares_prefixes: bool = True
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self._min_density, self._shares_prefixes = min_density, shares_prefixes
        self._end = 0  # no block from here on is held
        self._free = list(range(num_blocks))  # a heap
        self._holders = [0] * num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently released first
        self._block_of: dict[Prefix, int] = {}
        self._prefix_of: dict[int, Prefix] = {}
        self._numbers: dict[int, int] = {}  # block -> number of the prefix that ends with it
        self._next_number = NO_PREFIX + 1

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._free) + len(self._idle)

    @property
    def num_held(self) -> int:
        """Blocks that sequences hold."""
        return self.num_blocks - self.num_available

    @property
    def num_idle(self) -> int:
        """Blocks that nobody holds and whose content may be asked for again."""
        return len(self._idle)

    def allocate(self) -> int:
        """A block for one holder.

        Raises:
            EngineError: none is available; ask `num_available` first.
        """
        if not self._free:
            if not self._idle:
                raise EngineError("the block pool is empty")
            self._evict()
        block = heapq.heappop(self._free)
        self._hold(block)
        return block

    def release(self, blocks: Sequence[int]) -> None:
        """Gives back one hold on each block; one that nobody holds any more becomes idle if its prefix is known,
        else free.

        The end of a sequence is forgotten before its beginning, since a longer prefix is worth nothing without the
        shorter one.
        """
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if block in self._prefix_of:
                    self._idle[block] = None
                else:
                    heapq.heappush(self._free, block)
        if self._min_density > 0:
            limit = max(MIN_IDLE_BLOCKS, MAX_IDLE_FRACTION * self.num_held)
            while len(self._idle) > limit:
                self._evict()

    def share(self, token_ids: Sequence[int], prefix: int = NO_PREFIX) -> PrefixMatch:
        """Takes a hold on the longest run of known full blocks that starts `token_ids` and leaves at least one token
        to compute. `prefix` is the number before the first block: negative ones keep families of prefixes apart."""
        blocks: list[int] = []
        for start in range(0, len(token_ids) - self.block_size, self.block_size):
            block = self._block_of.get((prefix, tuple(token_ids[start : start + self.block_size])))
            if block is None:
                break
            self._hold(block)
            self._idle.pop(block, None)
            blocks.append(block)
            prefix = self._numbers[block]
        return PrefixMatch(blocks=blocks, prefix=prefix)

    def register(self, block: int, prefix: int, token_ids: Sequence[int]) -> int:
        """Makes a full, computed block findable: `prefix` is the number of what leads up to it. Returns the number
        of the prefix it ends.

        Where another block holds the same content already, that one stays the one found.
        """
        if not self._shares_prefixes:
            return NO_PREFIX
        content = (prefix, tuple(token_ids))
        known = self._block_of.get(content)
        if known is not None:
            return self._numbers[known]
        number = self._next_number
        self._next_number += 1
        self._block_of[content], self._prefix_of[block], self._numbers[block] = block, content, number
        return number

    def compact(self) -> dict[int, int]:
        """Moves held blocks to lower places when less than `min_density` of the pool's used part is held.

        Returns the moves, old to new: whoever holds a block must rename it, and its content must be copied before
        anything is computed.
        """
        while self._end and not self._holders[self._end - 1]:
            self._end -= 1
        if self._end <= MIN_IDLE_BLOCKS or self.num_held >= self._min_density * self._end:
            return {}
        while self._idle:
            self._evict()
        moves: dict[int, int] = {}
        for block in range(self._end - 1, -1, -1):
            if self._free[0] > block:
                break
            if self._holders[block]:
                moves[block] = self._move(block)
        return moves

    def check_integrity(self) -> None:
        """Free, idle and held blocks add up to the pool, and no block is two of these.

        Raises:
            EngineError: they do not; the text has the numbers.
        """
        free, idle = set(self._free), set(self._idle)
        held = {block for block, holders in enumerate(self._holders) if holders > 0}
        if (
            len(free) != len(self._free)
            or free & idle
            or held & (free | idle)
            or len(free | idle | held) != self.num_blocks
        ):
            raise EngineError(
                f"block pool is inconsistent: {len(free)} free + {len(idle)} idle + {len(held)} held of {self.num_blocks}"
            )

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._end = max(self._end, block + 1)

    def _move(self, block: int) -> int:
        """Puts a held block into the lowest free place."""
        place = heapq.heappop(self._free)
        self._holders[place], self._holders[block] = self._holders[block], 0
        content = self._prefix_of.pop(block, None)
        if content is not None:
            self._prefix_of[place] = content
            self._block_of[content] = place
            self._numbers[place] = self._numbers.pop(block)
        heapq.heappush(self._free, block)
        return place

    def _evict(self) -> None:
        """Forgets the idle block that was released first; nothing that comes after its prefix can be found any more
        either."""
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._prefix_of.pop(block)]
        del self._numbers[block]
        heapq.heappush(self._free, block)
