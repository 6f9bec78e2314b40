"""The engine, the scorer and the attention kernels on a CUDA device: equal to the CPU, which is the reference."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Engine, Output, SamplingParams, Scorer
from models.layers.attention import cuda as attention_cuda
from models.layers.attention.attention import AttentionBackend, KvCache
from models.layers.kernels import attention_kernels
from tests.helpers.models.paged import Shape, make_step
from tests.helpers.models.tiny_engine import GREEDY, SHARP, logprobs, prompts, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
CheckpointMaker = Callable[..., Path]
CUDA = torch.device("cuda")
HEADS = ["causal", "sequence-classification", "token-classification", "question-answering"]
WAYS: dict[str, dict[str, Any]] = {
    "at once": {},
    "two at a time": {"max_num_seqs": 2},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "preempted": {"block_size": 4, "cache_bytes": 30 * 4 * 512},
}
SAMPLED = SamplingParams(max_tokens=20, temperature=0.9, top_k=40, top_p=0.97, min_p=0.01, ignore_eos=True, seed=5)


def generate(folder: Path, params: SamplingParams, *, device: str, dtype: str = "float32", **options: Any) -> Any:
    """The outputs of all prompts, and how often a sequence was preempted."""
    with Engine.from_pretrained(folder, device=device, dtype=dtype, **{"cache_bytes": 2**22, **options}) as engine:
        outputs = engine.generate(prompts(), params)
        engine.check_integrity()
        assert engine.stats.num_blocks_held == 0
        return outputs, engine.stats.num_preemptions


@pytest.mark.parametrize("way", list(WAYS))
def test_greedy_tokens_on_a_gpu_are_those_on_the_cpu(qwen3_checkpoint: CheckpointMaker, way: str) -> None:
    folder = qwen3_checkpoint("causal", **SHARP)
    expected, _ = generate(folder, GREEDY, device="cpu")
    found, num_preemptions = generate(folder, GREEDY, device="cuda", **WAYS[way])
    assert (num_preemptions > 0) == (way == "preempted")
    assert tokens(found) == tokens(expected)
    for output, reference in zip(found, expected, strict=True):
        assert logprobs(output) == pytest.approx(logprobs(reference), abs=1e-3)


def test_a_recurrent_networks_hits_on_a_gpu_give_what_misses_give_on_the_cpu(
    zamba2_checkpoint: CheckpointMaker,
) -> None:
    folder = zamba2_checkpoint()
    [common] = prompts([140], seed=5)
    job = [common + tail for tail in prompts((1, 9, 33, 60), seed=6)]
    params = GREEDY.changed(max_tokens=12)
    with Engine.from_pretrained(folder, device="cpu", dtype="float32", cache_bytes=2**22, state_stride=0) as engine:
        expected = engine.generate(job, params)
    with Engine.from_pretrained(folder, device="cuda", dtype="float32", cache_bytes=2**24) as engine:
        for _ in range(2):
            found = engine.generate(job, params)
            engine.check_integrity()
            assert tokens(found) == tokens(expected)
    assert [output.num_cached_tokens for output in found] == [128] * 4


def test_seeded_draws_on_a_gpu_are_those_on_the_cpu(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal", **SHARP)
    expected, _ = generate(folder, SAMPLED, device="cpu")
    found, _ = generate(folder, SAMPLED, device="cuda")
    assert tokens(found) == tokens(expected)


def test_stop_ids_and_min_tokens_work_on_a_gpu(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal", **SHARP)
    free, _ = generate(folder, GREEDY, device="cuda")
    stop = free[3].token_ids[6]
    for min_tokens in (0, 12):
        params = GREEDY.changed(stop_token_ids=(stop,), min_tokens=min_tokens, prompt_logprobs=1)
        expected, _ = generate(folder, params, device="cpu")
        found, _ = generate(folder, params, device="cuda")
        assert tokens(found) == tokens(expected)
        assert [output.finish_reason for output in found] == [output.finish_reason for output in expected]


def test_rules_work_on_a_gpu(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal", **SHARP)
    params = GREEDY.changed(
        logit_bias={5: 2.0, 9: -3.0}, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2,
        no_repeat_ngram_size=3, allowed_token_ids=tuple(range(4, 90)),
    )  # fmt: skip
    expected, _ = generate(folder, params, device="cpu")
    found, _ = generate(folder, params, device="cuda")
    assert tokens(found) == tokens(expected)


def agreement(found: list[Output], expected: list[Output]) -> float:
    """The part of the outputs that begin with the same token."""
    pairs = zip(found, expected, strict=True)
    return sum(one.token_ids[0] == other.token_ids[0] for one, other in pairs) / len(found)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("way", ["at once", "two at a time", "chunks of 7"])
def test_half_precision_runs_on_the_flash_kernels(qwen3_checkpoint: CheckpointMaker, dtype: str, way: str) -> None:
    folder = qwen3_checkpoint("causal", **SHARP)
    expected, _ = generate(folder, GREEDY, device="cpu")
    found, _ = generate(folder, GREEDY, device="cuda", dtype=dtype, cache_bytes=2**24, **WAYS[way])
    assert [len(output.token_ids) for output in found] == [20] * len(found)
    assert agreement(found, expected) >= 0.8


@pytest.mark.parametrize("head", HEADS)
def test_scores_on_a_gpu_are_those_on_the_cpu(qwen3_checkpoint: CheckpointMaker, head: str) -> None:
    folder = qwen3_checkpoint(head, num_labels=5, pad_token_id=0)
    expected = Scorer.from_pretrained(folder, device="cpu").score(prompts())
    found = Scorer.from_pretrained(folder, device="cuda").score(prompts())
    for one, other in zip(found, expected, strict=True):
        assert (one.device.type, one.dtype) == ("cpu", torch.float32)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    half = Scorer.from_pretrained(folder, device="cuda", dtype="bfloat16").score(prompts())
    for one, other in zip(half, expected, strict=True):
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)


def test_label_scores_on_a_gpu_are_those_on_the_cpu(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal")
    labels = [[5], [7, 8], [7, 9, 11]]
    expected = Scorer.from_pretrained(folder, device="cpu").score_labels(prompts(), labels)
    found = Scorer.from_pretrained(folder, device="cuda").score_labels(prompts(), labels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    half = Scorer.from_pretrained(folder, device="cuda", dtype="bfloat16").score_labels(prompts(), labels)
    torch.testing.assert_close(half, expected, atol=0.2, rtol=0.05)


def backends() -> dict[str, AttentionBackend]:
    """Torch's own variable-length kernel, and flash-attn's where it is installed."""
    found = {"torch-varlen": attention_cuda.gathered_backend(attention_kernels._torch_varlen())}
    if find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func

        found["flash-attn"] = attention_cuda.paged_backend(flash_attn_varlen_func)
    return found


@pytest.mark.parametrize("kernel", ["torch-varlen", "flash-attn"])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(sequences=[(7, 1), (300, 1), (0, 5), (0, 1), (3, 6), (120, 90), (0, 700), (258, 8)]),
        Shape(sequences=[(start, 1) for start in (1, 255, 256, 257, 600)], num_query_heads=8, num_kv_heads=1),
        Shape(sequences=[(520, 1), (600, 30), (530, 1), (0, 3)], num_shared=2),
        Shape(sequences=[(9, 4), (0, 70)], head_dim=80, num_query_heads=2),
        Shape(sequences=[(300, 1), (600, 1), (0, 700), (520, 90), (8, 1)], window=100),
    ],
    ids=["mixed", "decodes over one head", "shared blocks", "a head of 80", "a window"],
)
def test_a_kernel_aligns_the_last_query_with_the_last_key(kernel: str, shape: Shape) -> None:
    backend = backends().get(kernel)
    if backend is None:
        pytest.skip(f"{kernel} is not installed")
    sizes: dict[str, Any] = {"head_dim": max(16, shape.head_dim), "block_size": 256, "garbage": 100.0}
    step = make_step(replace(shape, dtype=torch.bfloat16, **sizes))
    cache = step.cache(backend)
    q, k, v = (tensor.to(CUDA) for tensor in (step.q, step.k, step.v))
    pages = KvCache(k=cache.k.to(CUDA), v=cache.v.to(CUDA))
    plan: Any = backend.plan(step.layout, CUDA, shape.window)
    found = backend.attend(q, k, v, pages, plan, step.scale)
    torch.testing.assert_close(found.double().cpu(), step.expected(), atol=4e-2, rtol=0)
