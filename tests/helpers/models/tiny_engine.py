"""Tiny models with sharp distributions, so that what they generate is neither one token for ever nor a near-tie."""

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from models import Engine, Output, SamplingParams
from models.engine import runner
from models.engine.live_request import Delivery
from models.layers.attention.attention import Layout
from models.loading.load import LoadedModel

LENGTHS = (1, 2, 7, 33, 64, 90)
VOCAB_SIZE = 96
BYTES_PER_TOKEN = 512  # keys and values of two layers, two heads of 16 channels, float32
SHARP: dict[str, Any] = {"initializer_range": 0.6, "seed": 2}
GREEDY = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True, logprobs=2)

MakeEngine = Callable[..., Engine]


def prompts(lengths: Sequence[int] = LENGTHS, *, seed: int = 0, vocab_size: int = VOCAB_SIZE) -> list[list[int]]:
    """Random token ids, one list a length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocab_size, (length,), generator=generator).tolist() for length in lengths]


def tokens(outputs: Sequence[Output]) -> list[list[int]]:
    return [output.token_ids for output in outputs]


def logprobs(output: Output) -> list[float]:
    """The log probability of every generated token."""
    assert output.logprobs is not None
    return [entry.logprob for entry in output.logprobs]


def blocks(count: int, block_size: int) -> dict[str, int]:
    """Engine options for a cache of exactly `count` blocks."""
    return {"cache_bytes": count * block_size * BYTES_PER_TOKEN, "block_size": block_size}


def two_in_flight() -> AbstractContextManager[int]:
    """Engines made within plan a step while the one before computes, as on a GPU."""
    return patch.object(runner, "CPU_STEPS_IN_FLIGHT", runner.GPU_STEPS_IN_FLIGHT)


OVERLAPS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "one step in flight": nullcontext,
    "two steps in flight": two_in_flight,
}


def outputs_in(deliveries: Sequence[Delivery]) -> dict[str, Output]:
    """What a step delivers of the requests that are not streamed."""
    return {each.request_id: each.answer for each in deliveries if isinstance(each.answer, Output)}


def drain(engine: Engine) -> dict[str, Output]:
    """Steps until nothing is left: what each request that was added gives."""
    outputs: dict[str, Output] = {}
    while engine.has_work:
        outputs |= outputs_in(engine.step())
        engine.check_integrity()
    return outputs


def folder_of(tmp_path: Path, checkpoint: Path, *, tokenizer: Path | None = None, eos: list[int] | None = None) -> Path:
    """A copy of a checkpoint, with a tokenizer and end-of-sequence tokens of its own."""
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    if tokenizer is not None:
        for file in tokenizer.iterdir():
            if file.name != "config.json":
                shutil.copy(file, tmp_path)
    if eos is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    return tmp_path


def failing_after(loaded: LoadedModel, num_steps: int, error: BaseException) -> LoadedModel:
    """The same model, but the attention backend of a step after this many fails."""
    left = iter(range(num_steps))

    def plan(layout: Layout, device: torch.device, window: int | None = None) -> Any:
        if next(left, None) is None:
            raise error
        return loaded.backend.plan(layout, device, window)

    return replace(loaded, backend=replace(loaded.backend, plan=plan))


def paused_after(loaded: LoadedModel, num_steps: int, gate: threading.Event) -> LoadedModel:
    """The same model, but the steps after this many wait for the gate."""
    left = iter(range(num_steps))

    def plan(layout: Layout, device: torch.device, window: int | None = None) -> Any:
        if next(left, None) is None:
            gate.wait()
        return loaded.backend.plan(layout, device, window)

    return replace(loaded, backend=replace(loaded.backend, plan=plan))
