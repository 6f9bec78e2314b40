"""Sequences computed whole, each by itself: where every token of them is asked about, or sees
those after it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from models.engine.scoring.batch import batch_of, packs
from models.layers.attention.attention import IntArray, Layout
from models.loading.load import LoadedModel
from models.tasks.embedding import Pooling

OnComputed = Callable[[int], None]
"""Takes how many more sequences are computed."""


class WholeSequences:
    """Passes of one model over whole sequences, packed by a budget of tokens."""

    def __init__(self, loaded: LoadedModel, *, budget: int, watchdog: AbstractContextManager[None]) -> None:
        self._loaded, self._budget, self._watchdog = loaded, budget, watchdog

    def logits(
        self, sequences: Sequence[Sequence[int]], places: Sequence[int] | None, on_computed: OnComputed
    ) -> list[torch.Tensor]:
        """The head's logits of each sequence's tokens [T, L], or of the one at its place [L];
        float32 on the CPU."""
        found: dict[int, torch.Tensor] = {}
        for members, counts, hidden in self._passes(sequences, places):
            logits = self._loaded.model.logits(hidden).float().cpu()
            parts = logits.split(counts.tolist()) if places is None else logits
            found.update(zip(members, parts, strict=True))
            on_computed(len(members))
        return [found[index] for index in range(len(sequences))]

    def pooled(
        self, sequences: Sequence[Sequence[int]], pooling: Pooling, num_skipped: int, on_computed: OnComputed
    ) -> torch.Tensor:
        """The final hidden state of each sequence's last token, its first after `num_skipped`, or
        the mean of all after those: [N, H] float32 on the CPU."""
        vectors = torch.empty(len(sequences), self._loaded.config.hidden_size)
        places = None if pooling == "mean" else [num_skipped if pooling == "cls" else len(ids) - 1 for ids in sequences]
        for members, counts, hidden in self._passes(sequences, places):
            states = hidden.float()
            if places is None:
                states = torch.stack([part[num_skipped:].mean(dim=0) for part in states.split(counts.tolist())])
            vectors[members] = states.cpu()
            on_computed(len(members))
        return vectors

    def _passes(
        self, sequences: Sequence[Sequence[int]], places: Sequence[int] | None
    ) -> Iterator[tuple[list[int], IntArray, torch.Tensor]]:
        """The sequences of each pass, their lengths, and the final hidden states of their tokens,
        or of the one at its place."""
        for members in packs([len(ids) for ids in sequences], self._budget):
            counts = np.array([len(sequences[index]) for index in members])
            layout = Layout(counts=counts, starts=np.zeros_like(counts))
            rows = None
            if places is not None:
                rows = np.cumsum(counts) - counts + [places[index] for index in members]
            with self._watchdog:
                batch = batch_of(self._loaded, [sequences[index] for index in members], layout, rows)
                yield members, counts, self._loaded.model(batch)
