"""A checkpoint that asks for more than its files hold, given to every command that loads one."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from tests.helpers.models.odd_checkpoints import copied
from tests.helpers.pipelines.running import write_corpus

CheckpointMaker = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings(
    "ignore:Using extra keyword arguments on `Field`"
)  # ray.serve.schema, when imported


@pytest.fixture
def model(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    return copied(tiny_checkpoint(), tmp_path / "model")


def arguments_of(command: str, model: Path, tmp_path: Path) -> list[str]:
    """A command that loads the model."""
    if command == "serve":
        return ["serve", str(model)]
    if command == "bench":
        workload = tmp_path / "workload.json"
        workload.write_text(
            json.dumps({"kind": "generate", "name": "w", "requests": [{"prompt_token_ids": [1], "max_tokens": 1}]})
        )
        return ["bench", str(model), str(workload)]
    spec = {
        "name": "j",
        "model": {"path": str(model)},
        "task": {"kind": "generate", "prompt": "{{ body }}"},
        "input": {"paths": [str(write_corpus(tmp_path / "rows.jsonl", 4))]},
        "output": {"path": str(tmp_path / "out")},
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return [command, str(path)]


@pytest.mark.parametrize("command", ["plan", "run", "serve", "bench"])
@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (1_000_000, "num_hidden_layers was 1000000; it must be a whole number from 1 to 4,096"),
        (4000, "num_hidden_layers is 4,000, and its files hold 2"),
    ],
)
def test_a_million_layers_are_refused_by_every_command(
    model: Path, tmp_path: Path, command: str, layers: int, said: str
) -> None:
    config = json.loads((model / "config.json").read_bytes()) | {"num_hidden_layers": layers, "layer_types": None}
    (model / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(app, arguments_of(command, model, tmp_path))
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["plan", pytest.param("run", marks=pytest.mark.cluster("own")), "serve", "bench"])
def test_a_tokenizer_of_a_gigabyte_is_refused_by_every_command(model: Path, tmp_path: Path, command: str) -> None:
    os.truncate(model / "tokenizer.json", 10**9)
    result = CliRunner().invoke(app, arguments_of(command, model, tmp_path))
    assert result.exit_code == 2, result.output
    assert "it has 1,000,000,000 bytes, and such a file may have 67,108,864" in result.stderr
