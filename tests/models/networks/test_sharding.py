"""Two and four shards of a whole model compute what one computes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Scorer
from models.errors import ConfigError
from models.loading.load import load_model
from models.parallel.tensor_parallel import TensorParallel
from tests.helpers.matrix import first_quick
from tests.helpers.models.ranks import on_ranks
from tests.helpers.tiny_families import DENSE, FAMILIES

OVERLAP = {"num_attention_heads": 12, "num_key_value_heads": 3, "head_dim": 8}
SHAPES: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    **{family: (family, "causal", FAMILIES[family].window) for family in DENSE},
    "biases": ("qwen3", "causal", {"attention_bias": True}),
    "one key/value head for all ranks": ("qwen3", "causal", {"num_key_value_heads": 1}),
    "a tied head of an odd vocabulary": ("qwen3", "causal", {"tie_word_embeddings": True, "vocab_size": 97}),
    "key/value heads that overlap": ("qwen3", "causal", OVERLAP),
    "a token head": ("qwen3", "token-classification", {}),
    "a question-answering head": ("qwen3", "question-answering", {}),
    "a sequence head": ("qwen3", "sequence-classification", {"pad_token_id": 0}),
    "smollm3 with biases": ("smollm3", "causal", {"attention_bias": True, "mlp_bias": True}),
    "helium with biases": ("helium", "causal", {"mlp_bias": True}),
    "qwen2 with heads that overlap": ("qwen2", "causal", OVERLAP | {"hidden_size": 96}),
    "phi3 with heads that overlap": ("phi3", "causal", OVERLAP | {"hidden_size": 96}),
}


@pytest.mark.parametrize("size", first_quick([2, 4]))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_shards_of_a_model_compute_what_the_whole_computes(
    family_checkpoint: Callable[..., Path], shape: str, size: int
) -> None:
    family, head, fields = SHAPES[shape]
    folder = family_checkpoint(family, head, num_labels=5, **fields)
    sequences = [[3, 14, 15, 92, 65], [35], list(range(3, 60))]

    def run(tp: TensorParallel) -> list[torch.Tensor]:
        return Scorer(load_model(folder, tp=tp)).score(sequences)

    whole = Scorer.from_pretrained(folder).score(sequences)
    for rank in on_ranks(size, run):
        for found, expected in zip(rank, whole, strict=True):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_a_model_that_cannot_be_split_is_refused(qwen3_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel_size was 3; .* 1, 2 or 4"):
        load_model(qwen3_checkpoint("causal"), tp=TensorParallel(rank=0, size=3))


ZAMBA2_SHAPES: dict[str, dict[str, Any]] = {
    "a group that spans ranks": {"num_mem_blocks": 2},
    "two groups": {"mamba_ngroups": 2},
    "attention adapters": {"use_shared_attention_adapter": True, "use_mem_rope": True},
    "biases": {"add_bias_linear": True},
    "one key/value head for all ranks": {"num_key_value_heads": 1},
}


@pytest.mark.parametrize("size", first_quick([2, 4]))
@pytest.mark.parametrize("shape", list(ZAMBA2_SHAPES))
def test_the_shards_of_a_hybrid_compute_what_the_whole_computes(
    zamba2_checkpoint: Callable[..., Path], shape: str, size: int
) -> None:
    folder = zamba2_checkpoint(**ZAMBA2_SHAPES[shape])
    sequences = [[3, 14, 15, 92, 65], [35], list(range(3, 60))]

    def run(tp: TensorParallel) -> list[torch.Tensor]:
        return Scorer(load_model(folder, tp=tp)).score(sequences)

    whole = Scorer.from_pretrained(folder).score(sequences)
    for rank in on_ranks(size, run):
        for found, expected in zip(rank, whole, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
