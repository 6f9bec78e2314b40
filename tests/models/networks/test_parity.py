"""What this package computes against what transformers computes, on tiny random checkpoints in float32."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from models import Engine, SamplingParams, Scorer
from tests.helpers.matrix import first_of_each
from tests.helpers.models.near_ties import assert_greedy
from tests.helpers.models.tiny_engine import SHARP
from tests.helpers.tiny_families import DENSE, FAMILIES, LONGROPE, TINY

CheckpointMaker = Callable[..., Path]
ORACLES: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
CASES = [(family, shape) for family, row in FAMILIES.items() for shape in row.shapes]
HEADS_WITHOUT_AN_ORACLE = {(name, head) for name in DENSE for head in FAMILIES[name].missing}
HEAD_CASES = [(*case, head) for case in CASES for head in ORACLES if (case[0], head) not in HEADS_WITHOUT_AN_ORACLE]


def shape_or_head(case: tuple[str, str, str]) -> tuple[str, str]:
    """Every shape with one head, and every head with one shape."""
    family, shape, head = case
    return (family, shape if head == "causal" else head)


LENGTHS = (1, 2, 7, 33, 64, 90)


def test_shapes_reach_over_the_windows_and_contexts_that_they_name() -> None:
    """One longer than every sequence, or shorter than each, would hold nothing."""
    reached = set()
    for family, shape in CASES:
        fields = FAMILIES[family].shapes[shape]
        rope = fields.get("rope_parameters", {})
        for name in ("sliding_window", "original_max_position_embeddings"):
            limit = fields.get(name) or rope.get(name)
            if limit is not None:
                assert min(LENGTHS) < limit < max(LENGTHS), (family, shape)
                reached.add((family, name))
    windows = {family for family, name in reached if name == "sliding_window"}
    assert windows >= {"qwen3", "smollm3", "phi3", "mistral", "qwen2"}
    assert reached >= {(family, "original_max_position_embeddings") for family in ("qwen3", "phi3", "llama", "qwen2")}


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_a_llama3_rotation_keeps_scales_and_blends_pairs(family: str) -> None:
    """As transformers computes it: with a head of few channels one of the three may be empty."""
    row, scaled = FAMILIES[family], FAMILIES[family].shapes["llama3"]["rope_parameters"]
    fields = {
        name: value for name, value in {**TINY, **row.fields, **row.shapes["llama3"]}.items() if value is not None
    }
    width = torch.arange(0, fields["head_dim"], 2) / fields["head_dim"]
    inverse, _ = ROPE_INIT_FUNCTIONS["llama3"](row.config_class(**fields), torch.device("cpu"))
    parts = inverse * scaled["rope_theta"] ** width
    kept, divided = torch.isclose(parts, torch.tensor(1.0)), torch.isclose(parts, torch.tensor(1 / scaled["factor"]))
    assert kept.any()
    assert divided.any()
    assert (~kept & ~divided).any()


def ragged(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 96, (length,), generator=generator).tolist() for length in LENGTHS]


def oracle_logits(folder: Path, head: str, ids: list[int]) -> torch.Tensor:
    return logits_of(ORACLES[head].from_pretrained(folder, dtype=torch.float32), head, ids)


def logits_of(model: Any, head: str, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        output = model(torch.tensor([ids]))
    if head == "question-answering":
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    logits: torch.Tensor = output.logits[0]
    return logits


@pytest.mark.parametrize(("family", "shape", "head"), first_of_each(HEAD_CASES, kind=shape_or_head))
def test_logits_are_those_of_transformers(
    family_checkpoint: CheckpointMaker, family: str, shape: str, head: str
) -> None:
    folder = family_checkpoint(family, head, **{"num_labels": 5, "pad_token_id": 0} | FAMILIES[family].shapes[shape])
    scorer = Scorer.from_pretrained(folder)
    assert scorer.head == head
    oracle = ORACLES[head].from_pretrained(folder, dtype=torch.float32)
    for ids, logits in zip(ragged(), scorer.score(ragged()), strict=True):
        torch.testing.assert_close(logits, logits_of(oracle, head, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("family", "shape"), first_of_each(CASES, kind=lambda case: case[0]))
def test_greedy_tokens_of_a_ragged_batch_are_those_of_transformers(
    family_checkpoint: CheckpointMaker, family: str, shape: str
) -> None:
    """Windows and the switch of longrope are crossed in the prompt of some and while generating in others: of a shape that is not the
    family's first, the shortest, one between and the longest are compared."""
    folder = family_checkpoint(family, "causal", max_position_embeddings=256, **SHARP | FAMILIES[family].shapes[shape])
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    oracle.generation_config.eos_token_id = None
    with Engine.from_pretrained(folder, cache_bytes=2**22) as engine:
        outputs = engine.generate(ragged(), SamplingParams(max_tokens=64, temperature=0.0, ignore_eos=True))
    assert len({token for output in outputs for token in output.token_ids}) > 20
    is_first = shape == next(iter(FAMILIES[family].shapes))
    for ids, output in zip(ragged(), outputs, strict=True):
        assert len(output.token_ids) == 64
        assert output.finish_reason == "length"
        if is_first or len(ids) in (1, 33, 90):
            assert_greedy(oracle, ids, output.token_ids)


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


@pytest.mark.parametrize("family", DENSE)
def test_bfloat16_agrees_on_the_top_token(family_checkpoint: CheckpointMaker, family: str) -> None:
    folder = family_checkpoint(family, "causal", dtype=torch.bfloat16, num_hidden_layers=4)
    # torch's fused attention, transformers' default, fails in bfloat16 where ATEN_CPU_CAPABILITY takes AVX-512 away
    oracle = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
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


@pytest.mark.parametrize(("family", "head"), sorted(HEADS_WITHOUT_AN_ORACLE))
def test_a_head_without_a_reference_class_is_that_head_over_the_body(
    family_checkpoint: CheckpointMaker, tmp_path: Path, family: str, head: str
) -> None:
    body = family_checkpoint(family, "causal", tie_word_embeddings=False)
    folder = shutil.copytree(body, tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [config["architectures"][0].replace("ForCausalLM", "ForQuestionAnswering")]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    tensors = {name.replace("model.", "transformer.", 1): value for name, value in tensors.items()}
    weight, bias = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, -0.5])
    save_file(tensors | {"qa_outputs.weight": weight, "qa_outputs.bias": bias}, folder / "model.safetensors")
    scorer = Scorer.from_pretrained(folder)
    assert scorer.head == head
    oracle: Any = AutoModel.from_pretrained(body, dtype=torch.float32)
    for ids, logits in zip(ragged(), scorer.score(ragged()), strict=True):
        with torch.no_grad():
            hidden = oracle(torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(logits, hidden @ weight.T + bias, atol=1e-4, rtol=0)


def test_old_phi3_token_heads_are_called_classifier(family_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    new = family_checkpoint("phi3", "token-classification", num_labels=5)
    old = shutil.copytree(new, tmp_path / "old")
    tensors = load_file(old / "model.safetensors")
    renamed = {name.replace("score.", "classifier."): value for name, value in tensors.items()}
    assert "classifier.bias" in renamed
    save_file(renamed, old / "model.safetensors")
    found, expected = (Scorer.from_pretrained(folder).score(ragged()) for folder in (old, new))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_an_early_phi3_names_longrope_su(family_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    """transformers 5.23 cannot load this spelling, so the reference is the same checkpoint in the new one."""
    new = family_checkpoint("phi3", "causal", original_max_position_embeddings=33, rope_parameters=LONGROPE)
    old = shutil.copytree(new, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "su", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]},
    }
    (old / "config.json").write_text(json.dumps(config))
    found, expected = (Scorer.from_pretrained(folder).score(ragged()) for folder in (old, new))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
