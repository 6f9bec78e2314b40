"""The block pool: which pages of the KV cache are held by whom, and which computed prefixes can be shared.

A block is free, held (by one or more sequences), or idle: held by nobody, its content kept because its prefix may be
asked for again. Full blocks are found by the exact tokens that lead up to their end. Integers only; the tensors live
in `caches`.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.errors import EngineError

Prefix = tuple[int, tuple[int, ...]]
"""What a full block holds: the number of the prefix before it (0: none), and its own tokens."""

NO_PREFIX = 0
MIN_SPARSE_BLOCKS = 32  # a smaller used part is never worth moving blocks
MAX_IDLE_FRACTION = 0.25  # of the pool, where it is kept dense
MIN_ONCE_FRACTION = 0.25  # of the idle blocks; so many stay although nobody has found them again yet


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixMatch:
    """A prefix that is shared: its blocks, and the prefix number at its end. `num_found` blocks of
    it are known, those that are of no use included."""

    blocks: list[int]
    prefix: int
    num_found: int


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens.

    Blocks with low numbers are handed out first. `min_density` is for an attention backend that
    walks the used part of the pool as a whole: at least that part of it is kept held, by
    `compact`, and a quarter of all blocks may be idle. 0 leaves blocks where they are, and idle
    ones for as long as there is room. `shares_prefixes` False is for a network whose recurrent
    states nothing keeps: no prefix is ever found. `on_forget` is told the number of every prefix
    that cannot be found any more.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        min_density: float = 0.0,
        shares_prefixes: bool = True,
        on_forget: Callable[[int], None] | None = None,
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self._on_forget = on_forget
        self._min_density, self._shares_prefixes = min_density, shares_prefixes
        self._end = 0  # no block from here on is held
        self._free = list(range(num_blocks))  # a heap
        self._holders = [0] * num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently released first
        self._once: OrderedDict[int, None] = OrderedDict()  # those of them that were of one sequence only
        self._shared: set[int] = set()  # blocks that were found again since they were computed
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
                    if block not in self._shared:
                        self._once[block] = None
                else:
                    heapq.heappush(self._free, block)
        if self._min_density > 0:
            while len(self._idle) > MAX_IDLE_FRACTION * self.num_blocks:
                self._evict()

    def find(self, token_ids: Sequence[int], prefix: int = NO_PREFIX) -> list[int]:
        """The longest run of known full blocks that starts `token_ids` and leaves at least one
        token to compute. `prefix` is the number before the first block: negative ones keep
        families of prefixes apart."""
        blocks: list[int] = []
        for start in range(0, len(token_ids) - self.block_size, self.block_size):
            block = self._block_of.get((prefix, tuple(token_ids[start : start + self.block_size])))
            if block is None:
                break
            blocks.append(block)
            prefix = self._numbers[block]
        return blocks

    def prefix_of(self, block: int) -> int:
        """The number of the prefix that ends with a block that was found."""
        return self._numbers[block]

    def share(
        self, token_ids: Sequence[int], prefix: int = NO_PREFIX, usable: Callable[[Sequence[int]], int] = len
    ) -> PrefixMatch:
        """Takes a hold on what `find` finds, or on as many of these blocks as `usable` says of
        their prefixes' numbers."""
        found = self.find(token_ids, prefix)
        blocks = found[: usable([self._numbers[block] for block in found])]
        for block in blocks:
            self._hold(block)
            self._shared.add(block)
            self._idle.pop(block, None)
            self._once.pop(block, None)
        return PrefixMatch(blocks=blocks, prefix=self._numbers[blocks[-1]] if blocks else prefix, num_found=len(found))

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
        """Moves held blocks to lower places when less than `min_density` of the pool's used part is held; idle ones that lie
        there change places with them.

        Returns the moves, old to new: whoever holds a block must rename it, and the contents must be copied, all at once,
        before anything is computed.
        """
        while self._end and not self._holders[self._end - 1]:
            self._end -= 1
        num_held = self.num_held
        if self._end <= MIN_SPARSE_BLOCKS or num_held >= self._min_density * self._end:
            return {}
        high = [block for block in range(num_held, self._end) if self._holders[block]]
        moves: dict[int, int] = {}
        while self._free and self._free[0] < num_held:
            moves[high.pop()] = heapq.heappop(self._free)
        for block in moves:
            heapq.heappush(self._free, block)
        for place in [block for block in self._idle if block < num_held]:
            block = high.pop()
            moves[block], moves[place] = place, block
        self._rename(moves)
        self._end = num_held
        return moves

    def check_holders(self, held: Iterable[int]) -> None:
        """Every block is held as often as it stands in `held`.

        Raises:
            EngineError: one is not; the text has the numbers.
        """
        counts = Counter(held)
        wrong = [block for block, holders in enumerate(self._holders) if holders != counts[block]]
        if wrong:
            raise EngineError(
                f"{len(wrong)} blocks are held more or less often than they are used; block {wrong[0]} "
                f"{self._holders[wrong[0]]} times for {counts[wrong[0]]} uses"
            )

    @property
    def prefixes(self) -> set[int]:
        """The numbers of all prefixes that can be found."""
        return set(self._numbers.values())

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
            or self._once.keys() != idle - self._shared
            or not self._shared <= self._prefix_of.keys()
        ):
            raise EngineError(
                f"block pool is inconsistent: {len(free)} free + {len(idle)} idle + {len(held)} held of {self.num_blocks}"
            )

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._end = max(self._end, block + 1)

    def _rename(self, moves: dict[int, int]) -> None:
        """Has all that is known of blocks follow them to their new places."""
        holders = {new: self._holders[old] for old, new in moves.items()}
        for block in moves:
            self._holders[block] = 0
        for place, count in holders.items():
            self._holders[place] = count
        self._idle, self._once = (
            OrderedDict.fromkeys(moves.get(block, block) for block in blocks) for blocks in (self._idle, self._once)
        )
        self._shared = {moves.get(block, block) for block in self._shared}
        known = [
            (new, self._prefix_of.pop(old), self._numbers.pop(old))
            for old, new in moves.items()
            if old in self._prefix_of
        ]
        for place, content, number in known:
            self._prefix_of[place], self._numbers[place] = content, number
            self._block_of[content] = place

    def _evict(self) -> None:
        """Forgets the idle block that was released first of those that nobody found again, unless these are few, else
        of all; nothing that comes after its prefix can be found any more either."""
        block = next(iter(self._once if len(self._once) > MIN_ONCE_FRACTION * len(self._idle) else self._idle))
        del self._idle[block]
        self._once.pop(block, None)
        self._shared.discard(block)
        del self._block_of[self._prefix_of.pop(block)]
        number = self._numbers.pop(block)
        heapq.heappush(self._free, block)
        if self._on_forget is not None:
            self._on_forget(number)
