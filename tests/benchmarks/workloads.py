"""The benchmark's models and its workloads, made from a seed: nothing is downloaded.

`python tests/benchmarks/workloads.py FOLDER` writes FOLDER/model (a Qwen3 of random weights, causal),
FOLDER/classifier (the same body with a classification head) and FOLDER/hybrid (a Zamba2 of 99 million parameters,
causal), and FOLDER/generate.json, FOLDER/classify.json and FOLDER/hybrid.json, which `millrace bench` reads.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Zamba2Config,
    Zamba2ForCausalLM,
)

VOCAB_SIZE = 32_000


def lognormal_lengths(rng: np.random.Generator, count: int, *, low: int, high: int) -> list[int]:
    """`count` lengths from `low` to `high`, log-normal around their geometric mean."""
    centre = (np.log(low) + np.log(high)) / 2
    spread = (np.log(high) - np.log(low)) / 4
    return [int(length) for length in np.clip(np.exp(rng.normal(centre, spread, count)), low, high)]


def requests(
    *, count: int, prompt: tuple[int, int], output: tuple[int, int] | None, seed: int
) -> list[dict[str, object]]:
    """Random prompts within the `prompt` range of lengths; `output` is the range of `max_tokens`, None for
    single-pass work."""
    rng = np.random.default_rng(seed)
    prompts = lognormal_lengths(rng, count, low=prompt[0], high=prompt[1])
    outputs = lognormal_lengths(rng, count, low=output[0], high=output[1]) if output else [0] * count
    return [
        {"prompt_token_ids": rng.integers(10, VOCAB_SIZE, length).tolist(), "max_tokens": max_tokens}
        for length, max_tokens in zip(prompts, outputs, strict=True)
    ]


def write(folder: Path, *, seed: int = 0) -> None:
    """Writes the checkpoints and the workloads into `folder`."""
    write_dense(folder, seed)
    write_hybrid(folder, seed)
    workloads = {
        "generate": ("generate", requests(count=128, prompt=(16, 512), output=(16, 256), seed=seed)),
        "classify": ("classify", requests(count=512, prompt=(16, 512), output=None, seed=seed + 1)),
        "hybrid": ("generate", requests(count=24, prompt=(16, 512), output=(16, 256), seed=seed + 2)),
    }
    for name, (kind, items) in workloads.items():
        (folder / f"{name}.json").write_text(json.dumps({"kind": kind, "name": f"lognormal-{name}", "requests": items}))


def write_dense(folder: Path, seed: int) -> None:
    """One body of 12 layers under two heads."""
    fields: dict[str, Any] = dict(  # noqa: C408
        vocab_size=VOCAB_SIZE,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        num_labels=8,
        dtype="bfloat16",
    )
    config = Qwen3Config(**fields)
    torch.manual_seed(seed)
    for name, model_class in (("model", Qwen3ForCausalLM), ("classifier", Qwen3ForSequenceClassification)):
        model_class(config).bfloat16().save_pretrained(folder / name)


def write_hybrid(folder: Path, seed: int) -> None:
    """21 Mamba-2 layers, every fifth after the first fed by one of two shared blocks."""
    hybrid_layers = (5, 10, 15, 20)
    fields: dict[str, Any] = dict(  # noqa: C408
        vocab_size=VOCAB_SIZE,
        hidden_size=640,
        intermediate_size=2560,
        num_hidden_layers=21,
        layers_block_type=["hybrid" if layer in hybrid_layers else "linear_attention" for layer in range(21)],
        num_attention_heads=10,
        n_mamba_heads=20,
        mamba_d_state=64,
        num_mem_blocks=2,
        adapter_rank=64,
        use_mem_rope=True,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        dtype="bfloat16",
    )
    torch.manual_seed(seed)
    Zamba2ForCausalLM(Zamba2Config(**fields)).bfloat16().save_pretrained(folder / "hybrid")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
