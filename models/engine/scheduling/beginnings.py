"""The blocks of what requests in flight begin with in common: they are held for as long as there
are such requests.

Between two requests of a job nothing else may hold what they share, and those of others would take
its place.

Integers only.
"""

from collections.abc import Mapping

from models.engine.scheduling.beginning import Beginning
from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.request import Request
from models.engine.scheduling.states import KeptStates

MAX_PINNED_FRACTION = 0.5  # of the pool


class Beginnings:
    """Those of all requests in flight, over one pool. At most half of its blocks are held."""

    def __init__(self, pool: BlockPool, states: KeptStates | None) -> None:
        self._pool, self._states = pool, states
        self._known: dict[tuple[int, ...], Beginning] = {}  # by the first block
        self._pinned: dict[Beginning, None] = {}
        self._num_held = 0

    @property
    def held(self) -> list[int]:
        """The blocks that are held; what two beginnings have in common is held by each."""
        return [block for beginning in self._pinned for block in beginning.blocks]

    def join(self, request: Request) -> Beginning | None:
        """The beginning of a request that came; None if it has no block that could be shared."""
        size = self._pool.block_size
        shareable = request.token_ids[: (len(request.token_ids) - 1) // size * size]  # one token is always computed
        if not shareable:
            return None
        found = self._known.setdefault(shareable[:size], Beginning(token_ids=shareable, block_size=size))
        found.meet(shareable)
        found.num_live += 1
        found.num_seen += 1
        if len(found.blocks) > found.num_blocks:
            self._let_go(found)  # the next sequence that begins so has the rest of it held again
        return found

    def leave(self, beginning: Beginning | None) -> None:
        """A request ended. With the last one the blocks are let go of."""
        if beginning is None:
            return
        beginning.num_live -= 1
        if not beginning.num_live:
            self._let_go(beginning)
            del self._known[beginning.token_ids[: self._pool.block_size]]

    def pin(self, beginning: Beginning, root: int) -> None:
        """Holds the blocks of a beginning that several requests have, as far as they are there and
        not held yet; `root` is the number before the first one."""
        if not beginning.is_common or len(beginning.blocks) == beginning.num_blocks:
            return
        self._let_go(beginning)
        if self._num_held + beginning.num_blocks > MAX_PINNED_FRACTION * self._pool.num_blocks:
            return
        beginning.blocks = self._pool.share([*beginning.token_ids, 0], root).blocks
        self._pinned[beginning] = None
        self._num_held += len(beginning.blocks)
        if self._states is not None:
            num_blocks = self._states.common_end(len(beginning.blocks))
            if num_blocks:
                beginning.reserved = self._pool.prefix_of(beginning.blocks[num_blocks - 1])
                self._states.snapshots.reserve(beginning.reserved)

    def unpin(self) -> bool:
        """Lets go of all blocks. Returns whether there were any."""
        pinned = list(self._pinned)
        for beginning in pinned:
            self._let_go(beginning)
        return bool(pinned)

    def rename(self, moves: Mapping[int, int]) -> None:
        """Has the blocks that are held follow to where the pool moved them."""
        for beginning in self._pinned:
            beginning.blocks = [moves.get(block, block) for block in beginning.blocks]

    def _let_go(self, beginning: Beginning) -> None:
        if beginning.reserved is not None and self._states is not None:
            self._states.snapshots.unreserve(beginning.reserved)
        self._pool.release(beginning.blocks)
        self._num_held -= len(beginning.blocks)
        beginning.blocks, beginning.reserved = [], None
        self._pinned.pop(beginning, None)
