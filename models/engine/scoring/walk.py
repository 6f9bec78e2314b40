"""A call's sequences in the order in which they are computed: what they begin with in common
first, once, then the rest of each.

    for pack in Walk(...).packs(sequences):
        ...     the sequences of the pack are computed now, behind their parents

A beginning is a pass of its own, and is kept for later calls that have it in the same place of
their own tree: what a sequence gets depends on the call it is in, and not on those before.
Sequences with nothing in common are packed as `batch.packs` does.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from models.engine.prefix_tree import PrefixNode, prefix_tree_of
from models.engine.scoring.cache_sizes import MAX_DEPTH
from models.engine.scoring.prefix_cache import Kept, Key, PrefixCache
from models.engine.scoring.segments import Passes, Segment
from models.layers.attention.attention import IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkedSequence:
    """A sequence of a call: what is computed of it, the rope regime it is in, and how many tokens
    follow it in its pass."""

    tokens: IntArray
    regime: int = 0
    num_more: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """Sequence number `index` of a call, whose first tokens are those of `parent`."""

    index: int
    parent: Segment | None

    @property
    def num_shared(self) -> int:
        return 0 if self.parent is None else self.parent.end

    def segment(self, asked: WalkedSequence) -> Segment:
        """What of its sequence is computed behind the parent."""
        return Segment(
            tokens=asked.tokens[self.num_shared :], parent=self.parent, shared=self.parent, regime=asked.regime
        )


@dataclass(kw_only=True, slots=True)
class _Pack:
    leaves: list[Leaf] = field(default_factory=list)
    num_tokens: int = 0


class Walk:
    """Computes what sequences have in common, once.

    `num_cached` are the tokens of each sequence of the last call that were not computed for it.
    """

    def __init__(
        self, passes: Passes, cache: PrefixCache, *, budget: int, watchdog: AbstractContextManager[None]
    ) -> None:
        self._passes, self._cache, self._budget, self._watchdog = passes, cache, budget, watchdog
        self.num_cached: IntArray = np.zeros(0, dtype=np.int64)

    def packs(
        self, asked: Sequence[WalkedSequence], *, keeps_hidden: bool = False, slots_each: int = 1
    ) -> Iterator[list[Leaf]]:
        """Every sequence once, with what it begins with in the cache until the next pack is taken.
        `keeps_hidden`: that of beginnings is put into the cache too. A sequence takes `slots_each`
        slots behind a beginning, where there are states."""
        self.num_cached = np.zeros(len(asked), dtype=np.int64)
        pack = _Pack()
        for regime in sorted({one.regime for one in asked}):
            members = [index for index, one in enumerate(asked) if one.regime == regime]
            tree = prefix_tree_of(
                [asked[index].tokens for index in members], max_depth=MAX_DEPTH if self._cache.has_states else None
            )
            yield from self._below(_Tree(asked, members, keeps_hidden, slots_each), tree, pack)
        yield from self._flushed(pack)

    def _below(self, tree: "_Tree", root: PrefixNode, pack: _Pack) -> Iterator[list[Leaf]]:
        todo: list[tuple[PrefixNode, Segment | None] | Segment] = [(root, None)]
        while todo:
            node = todo.pop()
            if isinstance(node, Segment):  # all beneath it is done, or waits in the pack, which holds it
                self._passes.release(node)
                continue
            beginning, segment = node
            if beginning.length:
                num_slots = tree.slots_each * len(pack.leaves) + 1  # what waits takes its own when it is computed
                if self._is_short(pack.num_tokens + beginning.length, num_slots, pack):
                    yield from self._flushed(pack)
                segment = self._opened(tree, beginning, segment)
                todo.append(segment)
            todo.extend((child, segment) for child in reversed(beginning.children))
            leaves = [Leaf(index=tree.members[number], parent=segment) for number in beginning.leaves]
            leaves.sort(key=lambda leaf: -tree.asked[leaf.index].tokens.size)
            for leaf in leaves:
                yield from self._added(tree, leaf, pack)

    def _added(self, tree: "_Tree", leaf: Leaf, pack: _Pack) -> Iterator[list[Leaf]]:
        """Puts a sequence into the pack, which is computed first where it is full."""
        one = tree.asked[leaf.index]
        num_tokens = one.tokens.size - leaf.num_shared + one.num_more
        is_other = bool(pack.leaves) and (pack.leaves[0].parent is None) != (leaf.parent is None)
        num_slots = tree.slots_each * (len(pack.leaves) + 1)
        if (
            is_other
            or pack.num_tokens + num_tokens > self._budget
            or self._is_short(pack.num_tokens + num_tokens, num_slots, pack)
        ):
            yield from self._flushed(pack)
        pack.leaves.append(leaf)
        pack.num_tokens += num_tokens
        self.num_cached[leaf.index] += leaf.num_shared
        if leaf.parent is not None:
            self._passes.hold(leaf.parent)

    def _is_short(self, num_places: int, num_slots: int, pack: _Pack) -> bool:
        """Whether the cache has no room for so many while the pack waits."""
        has_slots = not self._cache.has_states or num_slots <= self._cache.free_slots
        return bool(pack.leaves) and not (num_places <= self._cache.free_places and has_slots)

    def _flushed(self, pack: _Pack) -> Iterator[list[Leaf]]:
        """Has the pack computed, if there is something in it."""
        leaves, pack.leaves, pack.num_tokens = pack.leaves, [], 0
        if not leaves:
            return
        with self._watchdog:
            yield leaves
        for leaf in leaves:
            if leaf.parent is not None:
                self._passes.release(leaf.parent)

    def _opened(self, tree: "_Tree", beginning: PrefixNode, parent: Segment | None) -> Segment:
        """A beginning in the cache, held: found there, or computed now and kept."""
        number = tree.members[beginning.first]
        start, regime = (0 if parent is None else parent.end), tree.asked[number].regime
        tokens = tree.asked[number].tokens[: beginning.length]
        segment = Segment(tokens=tokens[start:], parent=parent, shared=parent, regime=regime)
        key = Key(tokens=tokens.tobytes(), ends=segment.ends, regime=regime, has_hidden=tree.keeps_hidden)
        found = self._cache.kept(key)
        if found is None:
            self._compute(segment, keeps_hidden=tree.keeps_hidden)
            assert segment.places is not None
            self._cache.keep(key, Kept(places=segment.places, slot=segment.slot))
            self.num_cached[number] -= segment.tokens.size
        else:
            segment.places, segment.slot = found.places, found.slot
            self._passes.hold(segment)
        return segment

    def _compute(self, segment: Segment, *, keeps_hidden: bool) -> None:
        with self._watchdog:
            hidden = self._passes.kept([segment], None if keeps_hidden else np.zeros(1, dtype=np.int64))
        if keeps_hidden:
            assert segment.places is not None
            self._cache.put_hidden(segment.places[segment.start :], hidden)


@dataclass(frozen=True, slots=True)
class _Tree:
    """What the numbers of a tree stand for: sequences of the call, by `members`."""

    asked: Sequence[WalkedSequence]
    members: list[int]
    keeps_hidden: bool
    slots_each: int
