"""Which model of a service a job may use."""

from dataclasses import replace
from typing import Any

import pytest

from actors.work import EngineSettings

JOBS = EngineSettings(path="org/model", version="1f2e", dtype="float32")


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # ray.serve.schema, when imported
@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ({"max_num_seqs": 7}, True),
        ({"num_threads": 3}, True),
        ({"tensor_parallel_size": 2}, True),
        ({"path": "org/other"}, False),
        ({"version": "9a8b"}, False),
        ({"dtype": "bfloat16"}, False),
        ({"quantization": "nf4"}, False),
        ({"model_options": {"mamba_dt_clamp": "none"}}, False),
        ({"model_options": {"mamba_dt_clamp": "prefill"}}, True),  # the default of every family that has it
    ],
)
def test_a_model_is_its_checkpoints_version_and_how_it_is_loaded(other: dict[str, Any], is_same: bool) -> None:
    from pipelines.graph.service_client import is_same_model

    assert is_same_model(JOBS, replace(JOBS, **other)) is is_same
