"""Blocks that are moved while sequences run change nothing of what they generate, nor of what those that find them later do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models import Engine, SamplingParams
from models.engine.scheduling.block_pool import BlockPool


def test_sequences_whose_blocks_were_moved_give_the_tokens_they_give_alone(
    qwen3_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, no_compiler: None
) -> None:
    """By torch's operators: compiled kernels read the blocks that they need, so none is moved for them."""
    moved, swapped = 0, 0
    compact = BlockPool.compact

    def counted(pool: BlockPool) -> dict[int, int]:
        nonlocal moved, swapped
        moves = compact(pool)
        moved += len(moves)
        swapped += sum(place in moves for place in moves.values())
        return moves

    monkeypatch.setattr(BlockPool, "compact", counted)
    prompts = [[3 + (7 * row + column) % 90 for column in range(5 + row % 11)] for row in range(24)]
    params = [SamplingParams(max_tokens=2 + (row * 5) % 37, temperature=0.0, ignore_eos=True) for row in range(24)]
    with Engine.from_pretrained(qwen3_checkpoint("causal"), cache_bytes=2**22, block_size=2) as engine:
        together, again = engine.generate(prompts, params), engine.generate(prompts, params)
        engine.check_integrity()
    assert moved > swapped > 0
    assert any(output.num_cached_tokens for output in again)
    assert [output.token_ids for output in again] == [output.token_ids for output in together]
    with Engine.from_pretrained(qwen3_checkpoint("causal"), cache_bytes=2**22, block_size=2) as engine:
        for prompt, param, output in zip(prompts, params, together, strict=True):
            assert engine.generate([prompt], param)[0].token_ids == output.token_ids
