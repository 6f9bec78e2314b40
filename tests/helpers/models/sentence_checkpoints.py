"""Tiny checkpoints with what sentence-transformers writes beside a network, in the bytes of its versions 2.7, 5.0 and 6.2.

The network is transformers'; the files are as the library's `save` writes them, which `test_sentence_transformers.py` holds.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

OLD = "sentence_transformers.models"
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "LogitScore": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
}
QUERY_PROMPT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
RERANKER_TEMPLATE = (
    "{%- for message in messages %}{%- if message.role == 'system' %}Judge by {{ message.content }}\n{%- endif %}"
    "{%- if message.role == 'query' %}<Query>: {{ message.content }}\n{%- endif %}"
    "{%- if message.role == 'document' %}<Document>: {{ message.content }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}\nassistant\n{%- endif %}"
)


def old_pooling(mode: str, **settings: Any) -> dict[str, Any]:
    """`1_Pooling/config.json` up to version 5: one flag is true."""
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    flags = {f"pooling_mode_{name}": name == mode for name in modes}
    return {"word_embedding_dimension": 32, **flags, "include_prompt": True, **settings}


def new_pooling(mode: str | list[str], **settings: Any) -> dict[str, Any]:
    """`1_Pooling/config.json` from version 6 on."""
    return {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": True, **settings}


def dense(in_features: int, out_features: int, activation: str, *, bias: bool = True) -> dict[str, Any]:
    """`2_Dense/config.json`; `activation` is a path in torch.nn.modules."""
    return {
        "in_features": in_features,
        "out_features": out_features,
        "bias": bias,
        "activation_function": f"torch.nn.modules.{activation}",
    }


def add_modules(
    folder: Path, modules: Sequence[tuple[str, Mapping[str, Any]]], *, is_old: bool = False, **files: Mapping[str, Any]
) -> Path:
    """Writes a chain behind the network of a folder, with random weights for projections; `files` are others, by name."""
    kinds = ["Transformer", *(kind for kind, _ in modules)]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds[1:], start=1))]
    types = [f"{OLD}.{kind}" if is_old else NEW.get(kind, f"{OLD}.{kind}") for kind in kinds]
    rows = zip(paths, types, strict=True)
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(rows)
    ]
    (folder / "modules.json").write_text(json.dumps(entries, indent=2))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=4))
    for path, (kind, settings) in zip(paths[1:], modules, strict=True):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings, indent=4))
        if kind == "Dense":
            save_file(_linear(settings), folder / path / "model.safetensors")
    return folder


def _linear(settings: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(settings["out_features"], settings["in_features"], generator=generator) * 0.3
    bias = torch.randn(settings["out_features"], generator=generator)
    return {"linear.weight": weight} | ({"linear.bias": bias} if settings["bias"] else {})


def without_template(folder: Path, target: Path) -> Path:
    """A copy of a checkpoint whose tokenizer has no chat template."""
    shutil.copytree(folder, target)
    (target / "chat_template.jinja").unlink(missing_ok=True)
    return target


def states(folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
    """The final hidden states [T, H] of each text alone, by transformers."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return [network(**tokenizer([text], return_tensors="pt")).last_hidden_state[0] for text in texts]
