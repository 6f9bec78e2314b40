"""What each process of a run imports: the start of a run is mostly that."""

import subprocess
import sys

import pytest

from tests.helpers.matrix import first_quick

WEB = {"fastapi", "starlette", "uvicorn", "ray.serve", "matplotlib"}
MODELS = {"torch", "transformers", "bitsandbytes", "llguidance"}


@pytest.mark.parametrize(
    ("process", "module", "without"),
    first_quick(
        [
            ("a spec that is checked", "jobs.spec.preflight", {"ray", "pandas"}),
            ("the reader of a tokenizer", "pipelines.unit_steps.isolated_work", {"ray", "pandas", "pydantic"}),
            ("the driver", "pipelines.run", set()),
            ("a task that reads", "pipelines.graph.read_stage", set()),
            ("what asks the engines", "pipelines.graph.engine_stage", set()),
            ("a task that commits", "pipelines.graph.finish_stage", set()),
        ]
    ),
)
def test_a_process_imports_what_it_needs(process: str, module: str, without: set[str]) -> None:
    code = f"import {module}, sys; print(sorted({WEB | MODELS | without!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]", process
