"""Zamba2 against transformers, on tiny random checkpoints in float32. Every oracle runs its sequence alone, unpadded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Zamba2ForCausalLM, Zamba2ForSequenceClassification, Zamba2Model

from models import Engine, SamplingParams, Scorer
from models.errors import ConfigError
from models.loading.load import load_model
from tests.helpers.matrix import first_of_each, first_quick
from tests.helpers.models.tiny_engine import prompts
from tests.helpers.models.tiny_zamba2 import HEAD_TENSORS, layers

CheckpointMaker = Callable[..., Path]
MAX_TOKENS = 64
SHAPES: dict[str, dict[str, Any]] = {
    "one shared block": {},
    "two shared blocks": {"num_mem_blocks": 2},
    "two shared blocks at uneven depths": {"num_mem_blocks": 2, **layers(7, 2, 3, 5, 6)},
    "three shared blocks": {"num_mem_blocks": 3, **layers(8, 0, 1, 3, 4, 6)},
    "fewer hybrid layers than shared blocks": {"num_mem_blocks": 2, **layers(3, 1)},
    "no hybrid layer": layers(3),
    "two groups": {"mamba_ngroups": 2},
    "as many groups as heads": {"mamba_ngroups": 8},
    "one head": {"n_mamba_heads": 1},
    "attention adapters": {"use_shared_attention_adapter": True},
    "attention adapters on two blocks": {
        "use_shared_attention_adapter": True,
        "num_mem_blocks": 2,
        **layers(7, 2, 3, 5, 6),
    },
    "rotary attention": {"use_mem_rope": True, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "rotary attention over a switched context": {
        "use_mem_rope": True,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 50.0,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0 + 0.1 * pair for pair in range(8)],
            "long_factor": [2.0 + pair for pair in range(8)],
        },
    },
    "biases": {"add_bias_linear": True},
    "fewer key/value heads": {"num_key_value_heads": 2},
    "untied": {"tie_word_embeddings": False},
    "large eps": {"rms_norm_eps": 1e-1},
    "gelu by tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "a floor that is never reached": {"time_step_min": 1e-6},
    "a convolution over two tokens": {"mamba_d_conv": 2},
    "an expansion of three": {"mamba_expand": 3},
    "chunks of one": {"chunk_size": 1},
    "chunks of seven": {"chunk_size": 7},
    "chunks of 32": {"chunk_size": 32},
}
GENERATED = (
    "one shared block",
    "two shared blocks at uneven depths",
    "two groups",
    "attention adapters on two blocks",
    "rotary attention",
    "biases",
    "chunks of seven",
)

QUICK = ("two shared blocks at uneven depths", "attention adapters on two blocks")
"""Two shapes that have most of what the others have."""


def oracle(folder: Path) -> Any:
    return Zamba2ForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("shape", first_of_each(SHAPES, kind=lambda shape: shape in QUICK and shape))
def test_logits_are_those_of_transformers(zamba2_checkpoint: CheckpointMaker, shape: str) -> None:
    """Of its float64 ones, which its own float32 ones are up to 5e-4 away from in some shapes and on some processors: at most
    twice as far as those, or 1e-4."""
    folder = zamba2_checkpoint(**SHAPES[shape])
    theirs, truth = (Zamba2ForCausalLM.from_pretrained(folder, dtype=dtype) for dtype in (torch.float32, torch.float64))
    for ids, logits in zip(prompts(), Scorer.from_pretrained(folder).score(prompts()), strict=True):
        with torch.no_grad():
            rounded, exact = (model(torch.tensor([ids]), use_cache=False).logits[0] for model in (theirs, truth))
        allowed = max(1e-4, 2 * float((rounded - exact).abs().max()))
        torch.testing.assert_close(logits.double(), exact, atol=allowed, rtol=0)


@pytest.mark.parametrize("shape", first_quick(GENERATED))
def test_greedy_tokens_of_a_ragged_batch_are_those_of_transformers(
    zamba2_checkpoint: CheckpointMaker, shape: str
) -> None:
    """All of the first shape; the shortest, one between and the longest of the others."""
    folder = zamba2_checkpoint(**SHAPES[shape])
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True)
    with Engine.from_pretrained(folder, cache_bytes=2**24, max_num_seqs=8) as engine:
        outputs = engine.generate(prompts(), params)
    model = oracle(folder)
    for ids, output in zip(prompts(), outputs, strict=True):
        if shape == GENERATED[0] or len(ids) in (1, 33, 90):
            assert output.token_ids == generated(model, ids)


def generated(model: Any, ids: list[int]) -> list[int]:
    with torch.no_grad():
        tokens = model.generate(
            torch.tensor([ids]),
            max_new_tokens=MAX_TOKENS,
            min_new_tokens=MAX_TOKENS,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
    found: list[int] = tokens[0, len(ids) :].tolist()
    return found


def test_the_reference_is_worth_comparing_with(zamba2_checkpoint: CheckpointMaker) -> None:
    """Different sequences stay different, none falls into one token, and prefill and decoding differ by their floor."""
    folder = zamba2_checkpoint()
    model = oracle(folder)
    found = [generated(model, ids) for ids in prompts()]
    assert all(len(set(ids)) >= 12 for ids in found)
    assert len({tuple(ids[-4:]) for ids in found}) == len(found)
    with torch.no_grad():
        whole = model(torch.tensor([prompts()[3] + found[3]])).logits[0]
    assert (whole[len(prompts()[3]) - 1 : -1].argmax(-1) != torch.tensor(found[3])).any()


def test_a_sequence_head_gives_what_transformers_gives(zamba2_checkpoint: CheckpointMaker) -> None:
    folder = zamba2_checkpoint("sequence-classification", num_mem_blocks=2, **layers(7, 2, 3, 5, 6))
    model: Any = Zamba2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    scorer = Scorer.from_pretrained(folder)
    assert scorer.head == "sequence-classification"
    sequences = [*prompts(), [5, 6, 7, 0], [0, 0]]
    for ids, logits in zip(sequences, scorer.score(sequences), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(logits, model(torch.tensor([ids]), use_cache=False).logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", list(HEAD_TENSORS))
def test_heads_that_transformers_has_no_class_for_stand_on_its_body(
    zamba2_checkpoint: CheckpointMaker, head: str
) -> None:
    folder, causal = zamba2_checkpoint(head, num_mem_blocks=2), zamba2_checkpoint(num_mem_blocks=2)
    name = HEAD_TENSORS[head][0]  # type: ignore[index]
    tensors = load_file(folder / "model.safetensors")
    body = Zamba2Model.from_pretrained(causal, dtype=torch.float32)
    scorer = Scorer.from_pretrained(folder)
    assert scorer.head == head
    for ids, logits in zip(prompts(), scorer.score(prompts()), strict=True):
        with torch.no_grad():
            hidden = body(torch.tensor([ids])).last_hidden_state[0]
        expected = hidden @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", ["causal", "sequence-classification", "token-classification", "question-answering"])
def test_every_head_takes_a_causal_body_that_has_its_output(zamba2_checkpoint: CheckpointMaker, head: str) -> None:
    loaded = load_model(zamba2_checkpoint(head))
    assert loaded.head == head
    assert not any(parameter.is_meta for parameter in loaded.model.parameters())


def test_bfloat16_agrees_on_the_top_token(zamba2_checkpoint: CheckpointMaker) -> None:
    folder = zamba2_checkpoint(dtype=torch.bfloat16, num_mem_blocks=2)
    ids = prompts()[-1]
    with torch.no_grad():
        truth = oracle(folder)(torch.tensor([ids])).logits[0]
    found = Scorer.from_pretrained(folder).score([ids])[0]
    best = truth.topk(2, dim=-1).values
    is_clear = best[:, 0] - best[:, 1] > 0.2
    assert is_clear.sum() > 40
    assert (found.argmax(-1) == truth.argmax(-1))[is_clear].all()


def test_label_log_probabilities_are_those_of_a_full_forward(zamba2_checkpoint: CheckpointMaker) -> None:
    folder = zamba2_checkpoint(num_mem_blocks=2)
    model = oracle(folder)
    labels = [[5], [7, 8], [7, 9, 11], [20, 21, 22, 23]]
    given = [*prompts(), prompts()[3][:32]]  # one that fills its blocks exactly
    for budget in (1, 4096):
        scores = Scorer.from_pretrained(folder, max_num_batched_tokens=budget).score_labels(given, labels)
        for prompt, row in zip(given, scores, strict=True):
            for label, score in zip(labels, row.tolist(), strict=True):
                with torch.no_grad():
                    logprobs = torch.log_softmax(model(torch.tensor([prompt + label])).logits[0], dim=-1)
                places = range(len(prompt) - 1, len(prompt) - 1 + len(label))
                expected = sum(logprobs[place, token].item() for place, token in zip(places, label, strict=True))
                assert score == pytest.approx(expected, abs=1e-4)


def test_prompt_log_probabilities_are_those_of_a_full_forward(zamba2_checkpoint: CheckpointMaker) -> None:
    folder, ids = zamba2_checkpoint(), prompts()[4]
    with torch.no_grad():
        expected = torch.log_softmax(oracle(folder)(torch.tensor([ids])).logits[0], dim=-1)
    params = SamplingParams(max_tokens=2, temperature=0.0, prompt_logprobs=0)
    with Engine.from_pretrained(folder, cache_bytes=2**22, max_num_seqs=2, max_num_batched_tokens=16) as engine:
        [output] = engine.generate([ids], params)
    assert output.prompt_logprobs is not None
    for position, entry in enumerate(output.prompt_logprobs[1:]):
        assert entry is not None
        assert entry.logprob == pytest.approx(expected[position, ids[position + 1]].item(), abs=1e-4)


def test_without_a_floor_tokens_are_those_of_a_checkpoint_that_has_none(zamba2_checkpoint: CheckpointMaker) -> None:
    floored, free = zamba2_checkpoint(), zamba2_checkpoint(time_step_min=1e-9)  # the same weights
    model = oracle(free)
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True)
    with Engine.from_pretrained(floored, mamba_dt_clamp="none", cache_bytes=2**24, max_num_seqs=8) as engine:
        outputs = engine.generate(prompts(), params)
    assert [output.token_ids for output in outputs] == [generated(model, ids) for ids in prompts()]
    scores = Scorer.from_pretrained(floored, mamba_dt_clamp="none").score(prompts())
    for ids, logits in zip(prompts(), scores, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(logits, model(torch.tensor([ids]), use_cache=False).logits[0], atol=1e-4, rtol=0)


def test_with_a_floor_for_all_tokens_decoding_gives_what_a_full_forward_gives(
    zamba2_checkpoint: CheckpointMaker,
) -> None:
    folder, ids = zamba2_checkpoint(), prompts()[3]
    params = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True, logprobs=0)
    with Engine.from_pretrained(folder, mamba_dt_clamp="both", cache_bytes=2**24, max_num_seqs=8) as engine:
        [output] = engine.generate([ids], params)
    with torch.no_grad():
        logits = oracle(folder)(torch.tensor([ids + output.token_ids])).logits[0, len(ids) - 1 : -1]
    assert output.token_ids == logits.argmax(-1).tolist()
    assert output.logprobs is not None
    expected = torch.log_softmax(logits, dim=-1).amax(-1)
    assert [entry.logprob for entry in output.logprobs] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("load", [Engine.from_pretrained, Scorer.from_pretrained])
def test_a_policy_that_does_not_exist_is_refused(zamba2_checkpoint: CheckpointMaker, load: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="mamba_dt_clamp was 'decode'; it must be one of none, prefill, both"):
        load(zamba2_checkpoint(), mamba_dt_clamp="decode")


def test_a_policy_is_refused_for_a_network_without_mamba_layers(family_checkpoint: CheckpointMaker) -> None:
    with pytest.raises(ConfigError, match="mamba_dt_clamp was 'both'; Qwen3 has no options of its own: leave it out"):
        load_model(family_checkpoint("qwen3"), model_options={"mamba_dt_clamp": "both"})


def test_attention_adapters_need_as_many_key_value_heads(zamba2_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    folder = zamba2_checkpoint(num_key_value_heads=2)
    config = (folder / "config.json").read_text()
    changed = config.replace('"use_shared_attention_adapter": false', '"use_shared_attention_adapter": true')
    assert changed != config
    (tmp_path / "config.json").write_text(changed)
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(ConfigError, match="num_key_value_heads was 2; with use_shared_attention_adapter it must be"):
        load_model(tmp_path)
