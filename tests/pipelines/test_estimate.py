"""What a job would cost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import SamplingParams, Scorer
from models.config.model_config import ModelConfig
from models.weights.weights import Checkpoint
from pipelines.estimate import memory_needed
from pipelines.job import EngineSpec, InputSpec, Job, ModelSpec, OutputSpec
from pipelines.sample import Sample
from pipelines.task_base.requests import ModelRequest
from pipelines.task_base.task import Task
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask

CheckpointMaker = Callable[..., Path]


def job_of(task: Task, **engine: Any) -> Job:
    return Job(
        name="j",
        model=ModelSpec(path="m"),
        task=task,
        input=InputSpec(paths=("i",)),
        output=OutputSpec(path="o"),
        engine=EngineSpec(**engine),
    )


GENERATE = GenerateTask(prompt="x", sampling=SamplingParams(max_tokens=8, temperature=0.0))


def sample_of(lengths: list[int], *, num_failed: int = 0) -> Sample:
    return Sample(
        prompt_tokens=np.array(lengths),
        failures={"bad": num_failed} if num_failed else {},
        rows=[[ModelRequest(row=0, token_ids=np.arange(length, dtype=np.int32) + 1)] for length in lengths],
    )


def test_memory_is_the_tensors_and_the_keys_and_values_of_all_sequences(tiny_checkpoint: CheckpointMaker) -> None:
    folder = tiny_checkpoint()
    config, checkpoint = ModelConfig.from_pretrained(folder), Checkpoint.open(folder)
    memory = memory_needed(job_of(GENERATE, max_num_seqs=10), config, checkpoint, sample_of([10, 22]))
    token_bytes = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, head_dim, float32
    assert memory.weights_bytes == pytest.approx((folder / "model.safetensors").stat().st_size, rel=0.05)
    assert memory.typical_cache_bytes == (16 + 8) * token_bytes * 10
    assert memory.full_cache_bytes == 128 * token_bytes * 10


@pytest.mark.parametrize("method", ["int8", "nf4", "fp4"])
def test_quantized_weights_are_counted_as_they_are_held(tiny_checkpoint: CheckpointMaker, method: str) -> None:
    folder = tiny_checkpoint()
    config, checkpoint = ModelConfig.from_pretrained(folder), Checkpoint.open(folder)
    job = replace(job_of(GENERATE), model=ModelSpec(path="m", quantization=method))
    memory = memory_needed(job, config, checkpoint, sample_of([10]))
    counts = {name: int(np.prod(tensor.shape)) for name, tensor in checkpoint.tensors.items()}
    linear = {name: count for name, count in counts.items() if name.endswith("_proj.weight")}
    rows = sum(checkpoint.tensors[name].shape[0] for name in linear)
    held = {
        "int8": sum(linear.values()) + 4 * rows,
        "nf4": sum(count // 2 + 4 * -(-count // 64) for count in linear.values()),
    }
    expected = held["int8" if method == "int8" else "nf4"] + 4 * (sum(counts.values()) - sum(linear.values()))
    assert memory.weights_bytes == expected


def test_a_hybrid_has_keys_and_values_in_few_layers_and_a_state_in_each(tiny_checkpoint: CheckpointMaker) -> None:
    folder = tiny_checkpoint(family="zamba2", max_position_embeddings=128)
    config, checkpoint = ModelConfig.from_pretrained(folder), Checkpoint.open(folder)
    memory = memory_needed(job_of(GENERATE, max_num_seqs=10), config, checkpoint, sample_of([16]))
    hybrids, layers = config.layer_types.count("hybrid"), config.num_hidden_layers
    token_bytes = 2 * hybrids * config.num_key_value_heads * config.head_dim * 4
    assert config.mamba is not None
    channels = config.mamba.inner_size + 2 * config.mamba.num_groups * config.mamba.state_size
    state_bytes = layers * 4 * (config.mamba.inner_size * config.mamba.state_size + 3 * channels)
    assert memory.typical_cache_bytes == (24 * token_bytes + state_bytes) * 10


@pytest.mark.parametrize(
    ("family", "fields"),
    [("qwen3", {}), ("zamba2", {}), ("qwen3", {"is_causal": False})],
    ids=["dense", "hybrid", "two-way"],
)
def test_a_single_pass_task_needs_what_its_scorer_may_keep(
    tiny_checkpoint: CheckpointMaker, family: str, fields: dict[str, Any]
) -> None:
    folder = tiny_checkpoint("sequence-classification", family=family, **fields)
    config, checkpoint = ModelConfig.from_pretrained(folder), Checkpoint.open(folder)
    memory = memory_needed(job_of(ClassifyTask(text="x")), config, checkpoint, sample_of([10]))
    kept = Scorer.from_pretrained(folder).memory.cache_bytes
    assert (memory.typical_cache_bytes, memory.full_cache_bytes) == (kept, kept)
    assert (kept > 0) == (fields == {})
