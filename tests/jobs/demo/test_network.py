"""The training network is Qwen3: what it writes, transformers loads, with the same logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    Qwen3ForCausalLM,
    Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from jobs.demo.checkpoint import load_weights, save_settings, save_weights
from jobs.demo.network import Network, Shape, TaskHead

SHAPE = Shape(
    vocab_size=500,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    rms_norm_eps=1e-3,
)
CLASSES: dict[TaskHead, Any] = {
    "causal": Qwen3ForCausalLM,
    "sequence-classification": Qwen3ForSequenceClassification,
    "token-classification": Qwen3ForTokenClassification,
    "question-answering": Qwen3ForQuestionAnswering,
}


@pytest.fixture(params=list(CLASSES))
def head(request: pytest.FixtureRequest) -> TaskHead:
    name: TaskHead = request.param
    return name


@pytest.fixture
def folder(head: TaskHead, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A checkpoint of large random weights, norms and biases included, so that a wrong detail shows."""
    torch.manual_seed(0)
    network = Network(SHAPE, head, num_labels=5)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, mean=1.0 if weight.ndim == 1 else 0.0, std=0.2)
    labels = [f"label {number}" for number in range(5)] if "classification" in head else []
    save_settings(SHAPE, head, tokenizer, tmp_path, labels=labels)
    save_weights(network, tmp_path)
    return tmp_path


def loaded(head: TaskHead, folder: Path) -> Network:
    network = Network(SHAPE, head, num_labels=5).eval()
    load_weights(network, folder)
    return network


@torch.no_grad()
def test_logits_equal_transformers(head: TaskHead, folder: Path) -> None:
    theirs, report = CLASSES[head].from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values())
    ids = torch.randint(0, 490, (3, 40), generator=torch.Generator().manual_seed(1))
    ours = loaded(head, folder)(ids)
    output = theirs.eval()(input_ids=ids)
    match head:
        case "sequence-classification":
            ours, expected = ours[:, -1], output.logits
        case "question-answering":
            expected = torch.stack((output.start_logits, output.end_logits), dim=-1)
        case _:
            expected = output.logits
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_padding_on_the_right_changes_nothing(head: TaskHead, folder: Path) -> None:
    network = loaded(head, folder)
    ids = torch.arange(20)[None]
    padded = torch.nn.functional.pad(ids, (0, 12), value=499)
    torch.testing.assert_close(network(padded)[:, :20], network(ids), atol=1e-5, rtol=0)


def test_head_reads_its_class_names_from_the_settings(head: TaskHead, folder: Path) -> None:
    config = CLASSES[head].config_class.from_pretrained(folder)
    if "classification" in head:
        assert config.id2label == {number: f"label {number}" for number in range(5)}
    assert (config.eos_token_id, config.pad_token_id) == (499, 497)
