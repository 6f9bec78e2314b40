"""A trained network as a Hugging Face folder: bfloat16 safetensors and the JSON files that `transformers` writes beside them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from jobs.demo.network import Network, Shape, TaskHead
from jobs.demo.tokenizer import END_OF_TEXT, TURN_END, save_tokenizer

ARCHITECTURES: Mapping[TaskHead, str] = {
    "causal": "Qwen3ForCausalLM",
    "sequence-classification": "Qwen3ForSequenceClassification",
    "token-classification": "Qwen3ForTokenClassification",
    "question-answering": "Qwen3ForQuestionAnswering",
}
WEIGHTS = "model.safetensors"


def save_settings(shape: Shape, head: TaskHead, tokenizer: Tokenizer, folder: Path, *, labels: Sequence[str]) -> None:
    """Writes everything but the weights; `labels` names the classes of a classification head and is empty for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config(shape, head, tokenizer, labels))
    if head == "causal":
        _write_json(folder / "generation_config.json", _generation_config(tokenizer))
    save_tokenizer(tokenizer, folder, max_length=shape.max_position_embeddings)


def save_weights(network: Network, folder: Path) -> None:
    """Writes the weights, rounded to bfloat16."""
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def load_weights(network: Network, folder: Path) -> None:
    """Reads a folder's weights into a network of its shape: bfloat16 values in the network's own dtype."""
    network.load_state_dict(load_file(folder / WEIGHTS))


def _config(shape: Shape, head: TaskHead, tokenizer: Tokenizer, labels: Sequence[str]) -> dict[str, Any]:
    sizes = asdict(shape)
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[head]],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "bfloat16",
        "eos_token_id": tokenizer.token_to_id(TURN_END),
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "layer_types": ["full_attention"] * shape.num_hidden_layers,
        "max_window_layers": shape.num_hidden_layers,
        "model_type": "qwen3",
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "rope_parameters": {"rope_theta": sizes.pop("rope_theta"), "rope_type": "default"},
        "sliding_window": None,
        "tie_word_embeddings": head == "causal",
        "transformers_version": "5.23.0",
        "use_cache": True,
        "use_sliding_window": False,
        **sizes,
    }
    if labels:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
    if head == "sequence-classification":
        config["problem_type"] = "single_label_classification"
    return config


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    end_of_turn, end_of_text = tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)
    return {
        "do_sample": False,
        "eos_token_id": [end_of_turn, end_of_text],
        "pad_token_id": end_of_text,
        "transformers_version": "5.23.0",
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
