"""How many rows a unit has that a run settles itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import SamplingParams
from models.config.model_config import ModelConfig
from pipelines.job import Job
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.units.planning import Plan
from pipelines.units.unit_rows import fitting_unit_rows, is_little_work, settled_unit_rows
from tests.helpers.pipelines.making import make_job

CLASSIFY = ClassifyTask(text="{{ body }}")


def plan_of(num_rows: int, *, row_bytes: int = 300, unit_rows: int = 4096) -> Plan:
    num_units = -(-num_rows // unit_rows)
    return Plan(
        schema=pa.schema([]),
        unit_rows=unit_rows,
        num_files=1,
        num_units=num_units,
        num_rows=num_rows,
        num_bytes=num_rows * row_bytes,
    )


def config_of(tiny_checkpoint: Callable[..., Path], **sizes: Any) -> ModelConfig:
    return replace(ModelConfig.from_pretrained(tiny_checkpoint()), **sizes)


@pytest.mark.parametrize(
    ("rows_per_s", "num_rows", "replicas", "rows"),
    [
        (5.0, 1000, 1, 100),  # 20 s of it
        (5.0, 1000, 4, 31),  # 8 units for each of 4
        (5.0, 20, 1, 10),  # 8 units would be half a second each: 2 s are
        (5000.0, 1_000_000, 1, 4096),  # the most there may be
        (0.01, 1000, 1, 1),  # a row that takes minutes is a unit
    ],
)
def test_a_unit_is_twenty_seconds_of_work_or_an_engines_eighth(
    rows_per_s: float, num_rows: int, replicas: int, rows: int
) -> None:
    assert fitting_unit_rows(4096, rows_per_s=rows_per_s, num_rows=num_rows, replicas=replicas) == rows


@given(
    st.integers(1, 10_000),
    st.floats(1e-3, 1e6),
    st.integers(1, 10**9),
    st.integers(1, 1000),
)
def test_a_unit_is_as_long_as_it_may_be_and_engines_have_their_share(
    most: int, rows_per_s: float, num_rows: int, replicas: int
) -> None:
    rows = fitting_unit_rows(most, rows_per_s=rows_per_s, num_rows=num_rows, replicas=replicas)
    assert 1 <= rows <= most
    assert rows == 1 or rows - 0.5 <= 20 * rows_per_s
    assert rows == most or rows + 0.5 >= 2 * rows_per_s
    if rows > 1 and rows - 0.5 > 2 * rows_per_s:  # it could be smaller, so all engines have their units
        assert num_rows >= 8 * replicas * (rows - 0.5)


def test_nobody_is_asked_where_all_is_little_work(tiny_checkpoint: Callable[..., Path]) -> None:
    tiny = config_of(tiny_checkpoint)
    assert is_little_work(make_job(CLASSIFY), plan_of(1000), tiny, replicas=1)


def test_an_engine_is_asked_where_a_unit_of_the_most_rows_may_be_long(tiny_checkpoint: Callable[..., Path]) -> None:
    """135M weights, as a model of 30 layers of 576 has them: 1,000 texts took three minutes on two cores."""
    small = config_of(tiny_checkpoint, hidden_size=576, num_hidden_layers=30, vocab_size=49152)
    for task in (CLASSIFY, GenerateTask(prompt="{{ body }}", sampling=SamplingParams(max_tokens=64))):
        assert not is_little_work(make_job(task), plan_of(1000), small, replicas=1)
    assert is_little_work(make_job(CLASSIFY), plan_of(4), small, replicas=1)


def test_a_size_that_the_spec_gives_is_taken_and_nobody_is_asked(tiny_checkpoint: Callable[..., Path]) -> None:
    def asked() -> float:
        raise AssertionError("an engine was asked")

    large = config_of(tiny_checkpoint, hidden_size=4096, num_hidden_layers=36, vocab_size=150_000)
    job = replace(make_job(CLASSIFY), unit_rows=500)
    assert settled_unit_rows(job, plan_of(10_000, unit_rows=500), large, replicas=1, rows_per_s=asked) == 500


def test_units_stay_large_where_no_speed_is_known(tiny_checkpoint: Callable[..., Path]) -> None:
    large = config_of(tiny_checkpoint, hidden_size=4096, num_hidden_layers=36, vocab_size=150_000)
    job: Job = make_job(CLASSIFY)
    assert settled_unit_rows(job, plan_of(10_000), large, replicas=1, rows_per_s=lambda: None) == 4096
    assert settled_unit_rows(job, plan_of(10_000), large, replicas=1, rows_per_s=lambda: 3.0) == 60
