"""With compiled kernels what is computed of a request is the same to the last bit, whatever else is computed, however its work is cut and
wherever it is found: tokens and log probabilities, in float32 and in bfloat16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Engine, Scorer
from models.config.families import FAMILIES
from models.engine.options import EngineOptions
from models.layers.kernels.compiled import native_kernels
from models.loading.load import LoadedModel, load_model
from tests.helpers.compilers import needs_compiler
from tests.helpers.models.tiny_engine import GREEDY, VOCAB_SIZE, logprobs, prompts

pytestmark = needs_compiler
DENSE = [family for family in FAMILIES if family != "zamba2"]
COMMON, LENGTHS = 60, (1, 2, 9, 33, 40)
WAYS: dict[str, dict[str, Any]] = {
    "together": {},
    "in pieces": {"max_num_batched_tokens": 23},
    "two at a time": {"max_num_seqs": 2},
    "small blocks": {"block_size": 4},
    "giving way": {"block_size": 16, "cache_bytes": 1 << 17},
}


def job() -> list[list[int]]:
    """Prompts that begin alike, and some that do not."""
    [common] = prompts([COMMON], seed=5)
    return [common + tail for tail in prompts(LENGTHS, seed=6)] + prompts(LENGTHS, seed=7)


def answers(loaded: LoadedModel, asked: list[list[int]], **options: Any) -> list[tuple[list[int], list[float]]]:
    with Engine(loaded, tokenizer=None, options=EngineOptions(**{"cache_bytes": 1 << 23, **options})) as engine:
        outputs = engine.generate(asked, GREEDY)
        engine.check_integrity()
    return [(output.token_ids, logprobs(output)) for output in outputs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", DENSE)
def test_a_request_is_answered_as_if_it_were_alone(
    family_checkpoint: Callable[..., Path], family: str, dtype: torch.dtype
) -> None:
    if native_kernels(dtype) is None:
        pytest.skip(f"this processor has no instructions for {dtype}")
    folder = family_checkpoint(family, vocab_size=VOCAB_SIZE, initializer_range=0.6, seed=2, dtype=dtype)
    loaded = load_model(folder)
    assert (loaded.dtype, loaded.backend.name) == (dtype, "native")
    asked = job()
    alone = [answer for prompt in asked for answer in answers(loaded, [prompt])]
    for way, options in WAYS.items():
        assert answers(loaded, asked, **options) == alone, way
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0)).tolist()
    assert answers(loaded, [asked[number] for number in order]) == [alone[number] for number in order]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_labels_are_scored_as_if_a_row_were_alone(qwen3_checkpoint: Callable[..., Path], dtype: str) -> None:
    if native_kernels(getattr(torch, dtype)) is None:
        pytest.skip(f"this processor has no instructions for {dtype}")
    folder = qwen3_checkpoint("causal", vocab_size=VOCAB_SIZE, initializer_range=0.6, seed=2)
    labels = [[3], [4, 5], [4, 6, 7]]
    asked = job()
    together = Scorer.from_pretrained(folder, dtype=dtype).score_labels(asked, labels)
    for prompt, found in zip(asked, together, strict=True):
        assert torch.equal(Scorer.from_pretrained(folder, dtype=dtype).score_labels([prompt], labels)[0], found)
