"""What a request leaves behind in its blocks is never seen by those that get them next."""

from collections.abc import Callable
from pathlib import Path

from models import Engine, SamplingParams


def test_a_cache_full_of_overflows_changes_nothing(qwen3_checkpoint: Callable[..., Path]) -> None:
    params = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)
    prompts = [[3 + (5 * row + column) % 90 for column in range(30 + row)] for row in range(6)]
    with Engine.from_pretrained(qwen3_checkpoint("causal"), cache_bytes=2**22, max_num_batched_tokens=50) as engine:
        clean = engine.generate(prompts, params)
    with Engine.from_pretrained(qwen3_checkpoint("causal"), cache_bytes=2**22, max_num_batched_tokens=50) as engine:
        for pages in engine._runner._pages:
            pages.fill_(float("nan"))
        dirty = engine.generate(prompts, params)
    assert [output.token_ids for output in dirty] == [output.token_ids for output in clean]
