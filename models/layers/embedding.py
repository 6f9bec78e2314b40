"""The token embedding and the language-model head, both split over the ranks by vocabulary.

The vocabulary is padded up to a multiple of the number of ranks; padded rows stay zero and never reach the logits.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.kernels.products import packed_product
from models.layers.linear import Linear, Part
from models.layers.native.library import PackedWeight
from models.parallel.tensor_parallel import TensorParallel
from models.weights.loadable import Loadable, Range, Slot, unallocated


def vocab_rows(vocab_size: int, tp: TensorParallel) -> tuple[Range, int]:
    """The published rows this rank holds, and how many rows its padded part has."""
    padded = -(-vocab_size // tp.size)
    start = min(tp.rank * padded, vocab_size)
    return (start, min(start + padded, vocab_size)), padded


class VocabEmbedding(Loadable):
    """ids [T] -> [T, H]; a rank looks up the ids of its own rows and the ranks are summed."""

    weight: nn.Parameter

    def __init__(self, name: str, vocab_size: int, hidden_size: int, *, tp: TensorParallel) -> None:
        super().__init__()
        self.name, self.tp = name, tp
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.rows, padded = vocab_rows(vocab_size, tp)
        self.weight = unallocated(padded, hidden_size)

    def slots(self) -> list[Slot]:
        start, stop = self.rows
        return [
            Slot(
                name=f"{self.name}.weight",
                shape=(self.vocab_size, self.hidden_size),
                source=(self.rows, (0, self.hidden_size)),
                parameter="weight",
                target=((0, stop - start), (0, self.hidden_size)),
            )
        ]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.tp.size == 1:
            return F.embedding(ids, self.weight)
        start, stop = self.rows
        is_ours = (ids >= start) & (ids < stop)
        rows = F.embedding(torch.where(is_ours, ids - start, 0), self.weight)
        return self.tp.all_reduce(rows * is_ours[:, None])


class VocabHead(Linear):
    """hidden [R, H] -> logits [R, V], in float32 where a compiled kernel computes them, else in the model's dtype. Either has
    its own weight, or is tied to the embedding's."""

    def __init__(self, name: str, vocab_size: int, hidden_size: int, *, tp: TensorParallel) -> None:
        rows, self._padded = vocab_rows(vocab_size, tp)
        super().__init__([Part(name=name, out_features=vocab_size, rows=rows)], hidden_size)
        self.tp, self.vocab_size = tp, vocab_size
        self.weight = unallocated(self._padded, hidden_size)
        self.tied_to: VocabEmbedding | None = None

    def tie(self, embedding: VocabEmbedding) -> None:
        """Takes the embedding's weight instead of one of its own. Call before loading; then `adopt` after it."""
        self.tied_to = embedding
        self.weight = None

    def adopt(self) -> None:
        """Packs, or refers to, the loaded weight of the embedding this head is tied to."""
        if self.tied_to is not None:
            self.product = packed_product(self.tied_to.weight.data, None)
            if self.product is None:
                self.weight = self.tied_to.weight

    def slots(self) -> list[Slot]:
        return [] if self.tied_to is not None else super().slots()

    def finalize(self) -> None:
        if self.tied_to is None:
            super().finalize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.product.in_float32(x) if isinstance(self.product, PackedWeight) else super().forward(x)
        if y.shape[-1] < self._padded:  # a weight held elsewhere has no padding
            y = F.pad(y, (0, self._padded - y.shape[-1]))
        return self.tp.all_gather(y)[:, : self.vocab_size]
