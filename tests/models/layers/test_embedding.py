"""The vocabulary over one, two and four ranks, also where it does not divide: the whole table and the whole logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers.embedding import VocabEmbedding, VocabHead, vocab_rows
from models.parallel.tensor_parallel import SINGLE, TensorParallel
from tests.helpers.models.ranks import loaded, on_ranks, write_checkpoint

HIDDEN = 12
# what divides, what does not, and so few tokens that the last rank has none
VOCABULARIES = [16, 15, 13, 5]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_embeddings_of_all_ranks_together_are_rows_of_the_table(tmp_path: Path, size: int, vocab_size: int) -> None:
    table, ids = random(vocab_size, HIDDEN), torch.arange(vocab_size).flip(0)
    checkpoint = write_checkpoint(tmp_path, {"embed_tokens.weight": table})

    def run(tp: TensorParallel) -> torch.Tensor:
        found: torch.Tensor = loaded(VocabEmbedding("embed_tokens", vocab_size, HIDDEN, tp=tp), checkpoint)(ids)
        return found

    for found in on_ranks(size, run):
        assert torch.equal(found, table[ids])


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_logits_of_all_ranks_side_by_side_are_those_of_the_whole_head(
    tmp_path: Path, size: int, vocab_size: int
) -> None:
    weight, x = random(vocab_size, HIDDEN), random(3, HIDDEN, seed=1)
    checkpoint = write_checkpoint(tmp_path, {"lm_head.weight": weight})

    def run(tp: TensorParallel) -> torch.Tensor:
        found: torch.Tensor = loaded(VocabHead("lm_head", vocab_size, HIDDEN, tp=tp), checkpoint)(x)
        return found

    for found in on_ranks(size, run):
        torch.testing.assert_close(found, F.linear(x, weight))


class Tied(nn.Module):
    """An embedding, and a head that is the same weight."""

    def __init__(self, vocab_size: int, tp: TensorParallel) -> None:
        super().__init__()
        self.embedding = VocabEmbedding("embed_tokens", vocab_size, HIDDEN, tp=tp)
        self.head = VocabHead("lm_head", vocab_size, HIDDEN, tp=tp)
        self.head.tie(self.embedding)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.embedding(ids))
        return logits


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tied_head_is_the_embedding_transposed(
    tmp_path: Path, size: int, vocab_size: int, dtype: torch.dtype
) -> None:
    table, ids = random(vocab_size, HIDDEN).to(dtype), torch.arange(vocab_size)
    checkpoint = write_checkpoint(tmp_path, {"embed_tokens.weight": table})

    def run(tp: TensorParallel) -> torch.Tensor:
        model: Any = loaded(Tied(vocab_size, tp), checkpoint, dtype)
        model.head.adopt()
        found: torch.Tensor = model(ids)
        return found

    for found in on_ranks(size, run):
        torch.testing.assert_close(found, F.linear(table, table))


def test_a_vocabulary_is_padded_up_and_only_its_own_rows_are_read() -> None:
    assert [vocab_rows(13, TensorParallel(rank=rank, size=4)) for rank in range(4)] == [
        ((0, 4), 4),
        ((4, 8), 4),
        ((8, 12), 4),
        ((12, 13), 4),
    ]
    assert vocab_rows(13, SINGLE) == ((0, 13), 13)
    assert vocab_rows(5, TensorParallel(rank=3, size=4)) == ((5, 5), 2)
