"""Work travels flat and comes apart as it went in."""

import pickle
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.work import EngineSettings, EngineWork
from models.engine.options import EngineOptions
from models.engine.scheduling.request import Output


def test_requests_come_apart_as_they_went_in() -> None:
    token_ids = [np.array([3, 1, 4], np.int32), np.array([], np.int32), np.array([1], np.int32)]
    work = EngineWork.of("unit-7", token_ids, [11, 12, 13])
    assert list(work.requests()) == [[3, 1, 4], [], [1]]
    assert work.seeds.tolist() == [11, 12, 13]


def test_parts_of_work_keep_each_requests_own_labels() -> None:
    token_ids = [np.array([number] * number, np.int32) for number in range(1, 6)]
    own = ((7,), (8,))
    work = EngineWork.of("w", token_ids, [11, 12, 13, 14, 15], {1: own, 4: own})
    first, second = work.halves()
    assert [(part.name, list(part.requests()), part.seeds.tolist(), part.own_labels) for part in (first, second)] == [
        ("wa", [[1], [2, 2]], [11, 12], {1: own}),
        ("wb", [[3] * 3, [4] * 4, [5] * 5], [13, 14, 15], {2: own}),
    ]
    assert work.labels(((1,), (2,))) == [((1,), (2,)), own, ((1,), (2,)), ((1,), (2,)), own]


def test_no_requests_are_no_work() -> None:
    assert list(EngineWork.of("unit-0", [], []).requests()) == []


def test_an_answer_pickles_in_a_few_bytes_more_than_its_text_and_tokens() -> None:
    """1,000 token ids are 3 bytes each in a pickle (protocol 5, BININT2); what else there is has to be small."""
    output = Output(
        token_ids=[*range(256, 1256)], text="x" * 4000, finish_reason="length", num_prompt_tokens=9, num_cached_tokens=0
    )
    assert len(pickle.dumps(output, pickle.HIGHEST_PROTOCOL)) < 4000 + 3 * 1000 + 150


@pytest.mark.parametrize("cache", [{"cache_bytes": 1 << 20}, {"gpu_memory_fraction": 0.5}])
def test_every_size_reaches_the_engine(cache: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {
        "max_model_len": 128, "max_num_seqs": 4, "max_num_batched_tokens": 512, "online_batched_tokens": 64, "block_size": 16,
        "state_stride": 8, "tensor_parallel_size": 2, **cache,
    }  # fmt: skip
    assert {field.name for field in fields(EngineOptions)} == {*sizes, "cache_bytes", "gpu_memory_fraction"}
    assert EngineSettings(path="m", **sizes).options == EngineOptions(**sizes)


def test_the_settings_find_what_they_name(tmp_path: Path) -> None:
    assert EngineSettings(path=str(tmp_path)).find("description").folder == tmp_path


def test_what_crosses_between_processes_needs_no_torch() -> None:
    script = "import sys, actors.work; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
