"""Passes over segments: tokens that follow others whose keys, values and states are in the cache,
or in the same pass.

A segment's table lists the places of all tokens before it, wherever they lie, so that the segments
of a pass may form a tree: every layer first writes the keys and values of all tokens of a pass,
and then each segment looks at those on its own way to the root. A state is handed on from pass to
pass: with recurrent layers a segment and the one it follows are never of one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from models.engine.scoring.batch import batch_of
from models.engine.scoring.prefix_cache import PrefixCache
from models.layers.attention.attention import IntArray, Layout
from models.loading.load import LoadedModel

SHARED_TOKENS = 256  # looked at once more for each further segment: from here it pays to say that they are shared


@dataclass(eq=False, kw_only=True, slots=True)
class Segment:
    """`tokens` that follow those of `parent`, or begin a sequence. Segments behind one `shared`
    stand side by side in a pass. `places` [end] are those of all its tokens and the ones before,
    and `slot` holds its state, once it is computed or about to be."""

    tokens: IntArray
    parent: "Segment | None" = None
    shared: "Segment | None" = None
    regime: int = 0
    places: IntArray | None = None
    slot: int | None = None

    @property
    def start(self) -> int:
        return 0 if self.parent is None else self.parent.end

    @property
    def end(self) -> int:
        return self.start + int(self.tokens.size)

    @property
    def ends(self) -> tuple[int, ...]:
        """Where it ends, behind where those it follows do."""
        return (self.end,) if self.parent is None else (*self.parent.ends, self.end)


class Passes:
    """Computes segments of one model, over one cache."""

    def __init__(self, loaded: LoadedModel, cache: PrefixCache) -> None:
        self._loaded, self._cache = loaded, cache

    def fresh(self, segments: Sequence[Segment], rows: IntArray | None) -> torch.Tensor:
        """The final hidden states of the packed tokens `rows` (None: all) [R, H] of segments that
        begin sequences, of which nothing is kept."""
        counts = np.array([segment.tokens.size for segment in segments])
        layout = Layout(counts=counts, starts=np.zeros_like(counts))
        batch = batch_of(self._loaded, [segment.tokens for segment in segments], layout, rows, _regimes(segments))
        return self._loaded.model(batch)  # type: ignore[no-any-return]

    def kept(self, segments: Sequence[Segment], rows: IntArray | None) -> torch.Tensor:
        """The same of any segments, each behind its parent; they get their places and slots, held
        until they are released."""
        for segment in segments:
            before = None if segment.parent is None else segment.parent.places
            segment.places, segment.slot = self._cache.take(int(segment.tokens.size), before)
        states = [(each.parent.slot, each.slot) for each in segments if each.parent is not None]
        self._cache.copy_states([(source, target) for source, target in states if source is not None])
        layout = Layout(
            counts=np.array([segment.tokens.size for segment in segments]),
            starts=np.array([segment.start for segment in segments]),
            tables=_tables(segments),
            block_size=1,
            slots=np.array([segment.slot or 0 for segment in segments]),
            families=_families(segments),
        )
        batch = batch_of(self._loaded, [segment.tokens for segment in segments], layout, rows, _regimes(segments))
        return self._loaded.model(batch, self._cache.caches)  # type: ignore[no-any-return]

    def hold(self, segment: Segment) -> None:
        """Keeps what a computed segment has in the cache until it is released once more."""
        assert segment.places is not None
        self._cache.hold(segment.places, segment.slot)

    def release(self, segment: Segment) -> None:
        """Lets go of a segment that was held or computed."""
        assert segment.places is not None
        self._cache.release(segment.places, segment.slot)


def last_rows(segments: Sequence[Segment]) -> IntArray:
    """The packed number of each segment's last token."""
    ends: IntArray = np.cumsum([segment.tokens.size for segment in segments]) - 1
    return ends


def _regimes(segments: Sequence[Segment]) -> IntArray:
    return np.array([segment.regime for segment in segments])


def _tables(segments: Sequence[Segment]) -> IntArray:
    tables = np.zeros((len(segments), max(segment.end for segment in segments)), dtype=np.int64)
    for table, segment in zip(tables, segments, strict=True):
        assert segment.places is not None
        table[: segment.end] = segment.places
    return tables


def _families(segments: Sequence[Segment]) -> tuple[tuple[int, int, int], ...]:
    """The runs of segments behind one that is shared, where it pays to name them; see `Layout`."""
    families, first = [], 0
    for _, run in groupby(segments, key=lambda segment: id(segment.shared)):
        members = list(run)
        shared, after = members[0].shared, first + len(members)
        if shared is not None and (len(members) - 1) * shared.end >= SHARED_TOKENS:
            families.append((first, after, shared.end))
        first = after
    return tuple(families)
