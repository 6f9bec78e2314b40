"""Timed workloads, in process."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest

from jobs.bench import measure, read_workload
from jobs.commands.bench import bench
from models.config.option import declared
from models.engine.options import EngineOptions
from models.errors import ConfigError

CheckpointMaker = Callable[..., Path]


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "workload.json"
    requests = [{"prompt_token_ids": [5, 6, 7], "max_tokens": 4}, {"prompt_token_ids": [8], "max_tokens": 2}]
    path.write_text(json.dumps({"kind": "generate", "name": "tiny", "requests": requests}))
    return path


@pytest.mark.parametrize("quantization", [None, "int8", "nf4", "fp4"])
def test_a_workload_runs_whole_with_any_quantization(
    tiny_checkpoint: CheckpointMaker, workload: Path, quantization: str | None
) -> None:
    measured = measure(str(tiny_checkpoint()), read_workload(workload), quantization=quantization)
    assert (measured.prompt_tokens, measured.completion_tokens) == (4, 6)
    assert measured.output_tokens_per_s > 0
    assert (measured.cached_tokens, measured.computed_tokens_per_s) == (0, measured.total_tokens_per_s)


def test_tokens_that_were_cached_are_counted_apart(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    """The warm-up leaves the one prompt's first block, of 32 tokens, to the run."""
    path = tmp_path / "workload.json"
    requests = [{"prompt_token_ids": list(range(5, 45)), "max_tokens": 4}]
    path.write_text(json.dumps({"kind": "generate", "name": "tiny", "requests": requests}))
    measured = measure(str(tiny_checkpoint()), read_workload(path))
    assert (measured.prompt_tokens, measured.cached_tokens) == (40, 32)
    assert measured.computed_tokens_per_s == pytest.approx((40 + 4 - 32) / measured.wall_s)


def test_the_sizes_of_the_command_are_the_engines_options() -> None:
    options, hints, found = declared(EngineOptions), get_type_hints(bench), inspect.signature(bench).parameters
    taken = found.keys() & options.keys()
    assert taken >= {"max_num_seqs", "max_num_batched_tokens", "cache_bytes"}
    for name in taken:
        assert (hints[name], found[name].default) == (get_type_hints(EngineOptions)[name], options[name].default)


def test_an_unknown_quantization_is_refused(tiny_checkpoint: CheckpointMaker, workload: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantization\.method was 'int3'; it must be one of int8, nf4, fp4"):
        measure(str(tiny_checkpoint()), read_workload(workload), quantization="int3")
