"""One model over several processes, over gloo: the tokens and logits of one."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Engine, SamplingParams, Scorer
from models.engine.shard_processes import LocalShards, StartShards
from models.errors import ConfigError, EngineError
from tests.helpers.matrix import first_quick
from tests.helpers.models.quantized import METHODS, save_quantized
from tests.helpers.models.tiny_engine import SHARP, prompts, tokens
from tests.helpers.models.warm_shards import WarmShards
from tests.helpers.tiny_families import FAMILIES
from tests.models.conftest import CheckpointMaker

OFTEN = ("qwen3", "zamba2")  # the slices of all families, for two and four: tests/models/networks/test_sharding.py
CASES = [
    *first_quick((family, 2) for family in FAMILIES if family in OFTEN),
    *(pytest.param(family, 2, marks=pytest.mark.faults) for family in FAMILIES if family not in OFTEN),
    pytest.param("qwen3", 4, marks=pytest.mark.slow),
    pytest.param("zamba2", 4, marks=pytest.mark.faults),
]
GREEDY = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True, logprobs=2)


def engine_on(folder: Path, size: int, *, start: StartShards = WarmShards, **options: Any) -> Engine:
    return Engine.from_pretrained(
        folder, cache_bytes=2**22, device="cpu", tensor_parallel_size=size, start=start, **options
    )


def scorer_on(folder: Path, **options: Any) -> Scorer:
    return Scorer.from_pretrained(folder, device="cpu", tensor_parallel_size=2, start=WarmShards, **options)


@pytest.mark.parametrize(("family", "size"), CASES)
def test_shards_generate_the_tokens_of_one_rank(family_checkpoint: CheckpointMaker, family: str, size: int) -> None:
    folder = family_checkpoint(family, **({} if FAMILIES[family].is_sharp else SHARP))
    with engine_on(folder, 1) as engine:
        expected = engine.generate(prompts(), GREEDY)
    with engine_on(folder, size, max_num_batched_tokens=20, max_num_seqs=3) as engine:
        found = engine.generate(prompts(), GREEDY)
        again = engine.generate(prompts(), GREEDY)
    assert tokens(found) == tokens(again) == tokens(expected)
    assert found[0].logprobs is not None
    assert expected[0].logprobs is not None
    ours, theirs = ([entry.logprob for entry in output.logprobs or []] for output in (found[0], expected[0]))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_shards_draw_the_tokens_of_one_rank(family_checkpoint: CheckpointMaker) -> None:
    folder = family_checkpoint("qwen3", **SHARP)
    params = SamplingParams(max_tokens=12, temperature=0.8, top_p=0.9, seed=7, prompt_logprobs=2, ignore_eos=True)
    outputs = []
    for size in (1, 2):
        with engine_on(folder, size, start=LocalShards) as engine:
            outputs.append(engine.generate(prompts(), params))
    assert tokens(outputs[0]) == tokens(outputs[1])
    assert outputs[1][-1].prompt_logprobs is not None


@pytest.mark.parametrize("head", ["causal", "sequence-classification", "token-classification", "question-answering"])
def test_shards_score_as_one_rank(family_checkpoint: CheckpointMaker, head: str) -> None:
    folder = family_checkpoint("qwen3", head, num_labels=5, pad_token_id=0)
    one = Scorer.from_pretrained(folder, device="cpu")
    two = scorer_on(folder)
    try:
        for found, expected in zip(two.score(prompts()), one.score(prompts()), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(two.embed(prompts()), one.embed(prompts()), atol=1e-4, rtol=0)
        if head == "causal":
            labels = [[5], [7, 8]]
            found, expected = (scorer.score_labels(prompts(), labels) for scorer in (two, one))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    finally:
        two.close()


@pytest.mark.parametrize("method", ["int8", "nf4"])
@pytest.mark.parametrize("family", ["qwen3", "zamba2"])
def test_each_shard_quantizes_its_own_slice(family_checkpoint: CheckpointMaker, family: str, method: str) -> None:
    """Its blocks are not those of the whole, so neither are the errors; but they are no larger."""
    folder = family_checkpoint(family)
    one = Scorer.from_pretrained(folder, device="cpu", quantization=method)
    plain = Scorer.from_pretrained(folder, device="cpu")
    two = scorer_on(folder, quantization=method)
    try:
        scores = [torch.cat(scorer.score(prompts())) for scorer in (two, one, plain)]
    finally:
        two.close()
    assert two.memory.weights_bytes < one.memory.weights_bytes < plain.memory.weights_bytes
    lost = (scores[1] - scores[2]).abs().max()
    assert lost > 0
    assert (scores[0] - scores[2]).abs().max() < 2 * lost


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_a_checkpoint_that_is_quantized_already_runs_on_shards(
    family_checkpoint: CheckpointMaker, tmp_path: Path, method: str
) -> None:
    """Weights of 4 bits are the very same where slices hold whole blocks; int8 scales its inputs by slice."""
    plain = family_checkpoint("qwen3", hidden_size=128, intermediate_size=128, head_dim=32)
    folder = save_quantized(plain, "causal", METHODS[method], tmp_path / "saved")
    one, whole = (Scorer.from_pretrained(path, device="cpu") for path in (folder, plain))
    two = scorer_on(folder)
    try:
        found, expected, exact = (torch.cat(scorer.score(prompts())) for scorer in (two, one, whole))
    finally:
        two.close()
    limit = 1e-4 if method == "nf4" else 2 * float((expected - exact).abs().max())
    assert (found - (expected if method == "nf4" else exact)).abs().max() < limit


def test_a_size_that_does_not_divide_is_refused(family_checkpoint: CheckpointMaker) -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel_size was 3; .* 1, 2 or 4"):
        engine_on(family_checkpoint("qwen3"), 3)


def test_a_killed_shard_ends_the_engine_and_the_other_shards(
    family_checkpoint: CheckpointMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.engine.shard_processes.END_S", 0.5)  # one waits for what never comes
    engine = engine_on(family_checkpoint("qwen3", **SHARP), 4)
    assert isinstance(engine._shards, WarmShards)
    processes = list(engine._shards._processes.values())
    engine.generate([[3, 4]], GREEDY)
    os.kill(processes[0].pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="a step of the engine failed"):
        engine.generate(prompts(), GREEDY)
    engine.close()
    deadline = time.monotonic() + 20
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(process.poll() is not None for process in processes)
