"""Final hidden states of causal networks pooled: that of a sequence's last token, or the mean of
its tokens."""

from collections.abc import Sequence

import torch

from models.engine.scoring.prefix_cache import PrefixCache
from models.engine.scoring.segments import Passes, Segment, last_rows
from models.engine.scoring.walk import Leaf, WalkedSequence


class PooledStates:
    """Pools one pack of a walk after another."""

    def __init__(self, passes: Passes, cache: PrefixCache) -> None:
        self._passes, self._cache = passes, cache

    def last(self, leaves: Sequence[Leaf], asked: Sequence[WalkedSequence]) -> torch.Tensor:
        """That of each sequence's last token [sequences, H]."""
        segments = [leaf.segment(asked[leaf.index]) for leaf in leaves]
        return self._hidden(segments, all_rows=False)

    def mean(self, leaves: Sequence[Leaf], asked: Sequence[WalkedSequence], num_skipped: int) -> torch.Tensor:
        """The mean of those after the first `num_skipped` of each sequence [sequences, H]. Those
        of what is shared come from the cache, where the walk has put them."""
        segments = [leaf.segment(asked[leaf.index]) for leaf in leaves]
        counts = [int(segment.tokens.size) for segment in segments]
        means = []
        for segment, own in zip(segments, self._hidden(segments, all_rows=True).split(counts), strict=True):
            if segment.parent is not None and segment.start > num_skipped:
                assert segment.parent.places is not None
                own = torch.cat([self._cache.hidden(segment.parent.places[num_skipped:]), own])
            else:
                own = own[num_skipped - segment.start :]
            means.append(own.float().mean(dim=0))
        return torch.stack(means)

    def _hidden(self, segments: Sequence[Segment], *, all_rows: bool) -> torch.Tensor:
        rows = None if all_rows else last_rows(segments)
        if all(segment.parent is None for segment in segments):
            return self._passes.fresh(segments, rows)
        hidden = self._passes.kept(segments, rows)
        for segment in segments:
            self._passes.release(segment)
        return hidden
