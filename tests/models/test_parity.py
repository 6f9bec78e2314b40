"""What this package computes against what transformers computes, on tiny random checkpoints in float32."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from models import Engine, SamplingParams, Scorer

CheckpointMaker = Callable[..., Path]
ORACLES: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "heads wider than hidden": {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 16},
    "one key/value head": {"num_key_value_heads": 1},
    "as many key/value heads": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True},
    "tied": {"tie_word_embeddings": True},
    "head_dim 80": {"head_dim": 80},
    "large eps": {"rms_norm_eps": 1e-2},
    "other theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
    "gelu": {"hidden_act": "gelu_pytorch_tanh"},
}
LENGTHS = (1, 2, 7, 33, 64, 90)


def ragged(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 96, (length,), generator=generator).tolist() for length in LENGTHS]


def oracle_logits(folder: Path, head: str, ids: list[int]) -> torch.Tensor:
    model = ORACLES[head].from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        output = model(torch.tensor([ids]))
    if head == "question-answering":
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    logits: torch.Tensor = output.logits[0]
    return logits


@pytest.mark.parametrize("head", list(ORACLES))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_logits_are_those_of_transformers(qwen3_checkpoint: CheckpointMaker, head: str, shape: str) -> None:
    folder = qwen3_checkpoint(head, num_labels=5, pad_token_id=0, **SHAPES[shape])
    scorer = Scorer.from_pretrained(folder)
    assert scorer.head == head
    for ids, logits in zip(ragged(), scorer.score(ragged()), strict=True):
        torch.testing.assert_close(logits, oracle_logits(folder, head, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_greedy_tokens_of_a_ragged_batch_are_those_of_transformers(
    qwen3_checkpoint: CheckpointMaker, shape: str
) -> None:
    folder = qwen3_checkpoint("causal", max_position_embeddings=256, **SHAPES[shape])
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with Engine.from_pretrained(folder, cache_bytes=2**22) as engine:
        outputs = engine.generate(ragged(), SamplingParams(max_tokens=64, temperature=0.0, ignore_eos=True))
    for ids, output in zip(ragged(), outputs, strict=True):
        with torch.no_grad():
            expected = oracle.generate(
                torch.tensor([ids]), max_new_tokens=64, min_new_tokens=64, do_sample=False, pad_token_id=0
            )
        assert output.token_ids == expected[0, len(ids) :].tolist()
        assert output.finish_reason == "length"


def test_the_old_spelling_of_the_rotary_base_gives_the_same_logits(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    new = qwen3_checkpoint("causal", rope_parameters={"rope_type": "default", "rope_theta": 123.0})
    old = shutil.copytree(new, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 123.0, "rope_scaling": None, "torch_dtype": config.pop("dtype")}
    (old / "config.json").write_text(json.dumps(config))
    for ours, theirs in zip(
        Scorer.from_pretrained(old).score(ragged()), Scorer.from_pretrained(new).score(ragged()), strict=True
    ):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(ours, oracle_logits(old, "causal", ragged()[-1]), atol=1e-4, rtol=0)


def test_bfloat16_agrees_on_the_top_token(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal", dtype=torch.bfloat16, num_hidden_layers=4)
    oracle = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = ragged()[-1]
    with torch.no_grad():
        reference, truth = oracle(torch.tensor([ids])).logits[0].float(), exact(torch.tensor([ids])).logits[0]
    noise = (reference - truth).abs().max()
    best = truth.topk(2, dim=-1).values
    is_clear = best[:, 0] - best[:, 1] > 2 * noise
    ours = Scorer.from_pretrained(folder).score([ids])[0]
    assert is_clear.sum() > 20
    assert (ours.argmax(-1) == truth.argmax(-1))[is_clear].float().mean() >= 0.99


def test_prompt_logprobs_are_those_of_transformers(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal")
    ids = ragged()[4]
    expected = torch.log_softmax(oracle_logits(folder, "causal", ids), dim=-1)
    with Engine.from_pretrained(folder, cache_bytes=2**22, max_num_batched_tokens=16) as engine:
        [output] = engine.generate([ids], SamplingParams(max_tokens=2, temperature=0.0, prompt_logprobs=3, logprobs=3))
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    for position, entry in enumerate(output.prompt_logprobs[1:]):
        assert entry is not None
        assert entry.token_id == ids[position + 1]
        assert entry.logprob == pytest.approx(expected[position, entry.token_id].item(), abs=1e-4)
        assert entry.rank == 1 + int((expected[position] > expected[position, entry.token_id]).sum())
        assert list(entry.top) == expected[position].topk(3).indices.tolist()
    assert output.logprobs is not None
    assert len(output.logprobs) == 2
    assert output.logprobs[0].logprob == pytest.approx(expected[-1].max().item(), abs=1e-4)
    assert output.logprobs[0].rank == 1


def test_label_log_probabilities_are_those_of_a_full_forward(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal")
    labels = [[5], [7, 8], [7, 9, 11], [20, 21, 22, 23]]
    prompts = [ids for ids in ragged(3) if len(ids) < 90] + [ragged(4)[3][:32]]  # one that fills its blocks exactly
    scores = Scorer.from_pretrained(folder).score_labels(prompts, labels)
    assert scores.shape == (len(prompts), len(labels))
    for prompt, row in zip(prompts, scores, strict=True):
        for label, score in zip(labels, row.tolist(), strict=True):
            logprobs = torch.log_softmax(oracle_logits(folder, "causal", prompt + label), dim=-1)
            places = range(len(prompt) - 1, len(prompt) - 1 + len(label))
            expected = sum(logprobs[place, token].item() for place, token in zip(places, label, strict=True))
            assert score == pytest.approx(expected, abs=1e-4)
