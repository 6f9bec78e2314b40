"""Pooled embeddings and reranking, against the same arithmetic on transformers' hidden states."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from models import Scorer
from models.errors import CheckpointError, RequestError
from tests.helpers.matrix import first_quick
from tests.helpers.tiny_families import FAMILIES
from tests.models.conftest import CheckpointMaker
from tests.models.networks.test_parity import ragged


def hidden_states(folder: Path) -> list[torch.Tensor]:
    oracle: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return [oracle(torch.tensor([ids])).last_hidden_state[0] for ids in ragged()]


def published_as_embedding(folder: Path, target: Path) -> Path:
    """The same weights as Qwen3-Embedding publishes them: bare names, no head, but a causal architecture."""
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    body = {name.removeprefix("model."): value for name, value in tensors.items() if name != "lm_head.weight"}
    save_file(body, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("normalize", first_quick([True, False]))
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_vectors_are_pooled_hidden_states(
    family_checkpoint: CheckpointMaker, family: str, pooling: Any, normalize: bool
) -> None:
    folder = family_checkpoint(family, tie_word_embeddings=False)
    found = Scorer.from_pretrained(folder).embed(ragged(), pooling=pooling, normalize=normalize)
    states = hidden_states(folder)
    pool = {"last": lambda state: state[-1], "mean": lambda state: state.mean(dim=0), "cls": lambda state: state[0]}
    expected = torch.stack([pool[pooling](state) for state in states])
    if normalize:
        expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_file_without_prefix_and_head_is_an_embedding_model(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    folder = published_as_embedding(qwen3_checkpoint("causal", tie_word_embeddings=False), tmp_path / "embedding")
    with pytest.raises(CheckpointError, match=r"lm_head.weight.*load it with head='embedding'"):
        Scorer.from_pretrained(folder)
    scorer = Scorer.from_pretrained(folder, head="embedding")
    for found, expected in zip(scorer.score(ragged()), hidden_states(folder), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(scorer.embed(ragged()), Scorer.from_pretrained(folder, head="embedding").embed(ragged()))


def test_a_checkpoint_with_a_head_embeds_without_it(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("sequence-classification", num_labels=3, pad_token_id=0)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen3ForSequenceClassification"]
    bare, whole = (Scorer.from_pretrained(folder, head=head).embed(ragged()) for head in ("embedding", "auto"))
    assert torch.equal(bare, whole)


def test_rerankers_weigh_yes_against_no(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal")
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = Scorer.from_pretrained(folder).rerank(ragged(), yes=7, no=9)
    with torch.no_grad():
        logits = torch.stack([oracle(torch.tensor([ids])).logits[0, -1] for ids in ragged()])
    torch.testing.assert_close(found, torch.softmax(logits[:, [7, 9]], dim=-1)[:, 0], atol=1e-5, rtol=0)


def test_what_cannot_be_embedded_is_refused(qwen3_checkpoint: CheckpointMaker) -> None:
    scorer: Any = Scorer.from_pretrained(qwen3_checkpoint("causal"))
    with pytest.raises(RequestError, match="pooling was 'max'; it must be one of auto, last, mean, cls"):
        scorer.embed([[3]], pooling="max")
    with pytest.raises(RequestError, match="sequence 1 has 0 tokens"):
        scorer.embed([[3], []])
