"""Tiny Zamba2 checkpoints, written by transformers; the heads it has no class for, on the body of its causal one."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.config.types import Head

NUM_LABELS = 5
TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "n_mamba_heads": 8,
    "mamba_d_state": 16,
    "adapter_rank": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "time_step_min": 0.2,  # of step sizes around 0.3, so that about a third are raised
    "num_labels": NUM_LABELS,
    "pad_token_id": 0,
}
HEAD_TENSORS: dict[Head, tuple[str, int]] = {
    "token-classification": ("score", NUM_LABELS),
    "question-answering": ("qa_outputs", 2),
}
SUFFIXES: dict[Head, str] = {"token-classification": "TokenClassification", "question-answering": "QuestionAnswering"}


def layers(num_layers: int, *hybrid: int) -> dict[str, Any]:
    """Config fields for a stack in which these layers are hybrid."""
    types = ["hybrid" if index in hybrid else "linear_attention" for index in range(num_layers)]
    return {"num_hidden_layers": num_layers, "layers_block_type": types}


def save_zamba2(
    folder: Path, head: Head, *, dtype: torch.dtype, seed: int, max_shard_size: str, fields: dict[str, Any]
) -> None:
    """Random weights whose every part shows in the logits, as `save_pretrained` writes them."""
    from transformers import Zamba2Config, Zamba2ForCausalLM, Zamba2ForSequenceClassification

    torch.manual_seed(seed)
    model_class = Zamba2ForSequenceClassification if head == "sequence-classification" else Zamba2ForCausalLM
    model: Any = model_class(Zamba2Config(**layers(7, 2, 5) | TINY | fields))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # ones, zeros and the like would hide a forgotten one
            mean = {"dt_bias": -1.0, "A_log": 0.0}.get(name.rpartition(".")[2], 1.0)
            torch.nn.init.normal_(parameter, mean=mean, std=0.5 if mean <= 0.0 else 0.2)
    if not fields.get("tie_word_embeddings", True):
        _share_blocks(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    if head in HEAD_TENSORS:
        _replace_head(folder, head)


def _share_blocks(model: Any) -> None:
    """Where embeddings are not tied transformers does not tie shared blocks either, and saves each under every layer."""
    decoder = model.model
    hybrid = [layer.shared_transformer for layer in decoder.layers if hasattr(layer, "shared_transformer")]
    for rank, block in enumerate(hybrid):
        block.load_state_dict(hybrid[rank % decoder.config.num_mem_blocks].state_dict())


def _replace_head(folder: Path, head: Head) -> None:
    name, channels = HEAD_TENSORS[head]
    tensors = load_file(folder / "model.safetensors")
    prefix = "transformer." if head == "question-answering" else "model."
    body = {prefix + key.removeprefix("model."): tensor for key, tensor in tensors.items() if key != "lm_head.weight"}
    weight = torch.randn(channels, TINY["hidden_size"], dtype=next(iter(tensors.values())).dtype)
    save_file(body | {f"{name}.weight": weight, f"{name}.bias": weight[:, 0].clone()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [f"Zamba2For{SUFFIXES[head]}"]
    (folder / "config.json").write_text(json.dumps(config))
