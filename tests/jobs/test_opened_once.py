"""A run opens its job once: counted in the driver's process, over a whole `millrace run`."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import actors.work
import pipelines.job
import pipelines.unit_steps.isolated_preparer
from jobs.cli import app
from models.text.tokenizer import Tokenizer
from pipelines.templates.templates import RowTemplate
from tests.helpers.pipelines.running import rows_in

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SPEC = """\
name: once
model: {{path: {model}, dtype: float32}}
task:
  kind: generate
  messages:
    - {{role: system, content: "Be brief."}}
    - {{role: user, content: "{{{{ body }}}} {{{{ id }}}}"}}
  sampling: {{max_tokens: 2}}
input: {{paths: [{corpus}]}}
output: {{path: {out}, format: jsonl}}
"""
NUM_TEMPLATES = 4
"""A role and a content for each of two messages."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this process has looked for a checkpoint, had a tokenizer read, or compiled a template."""
    counts: Counter[str] = Counter()

    def counted(name: str, place: Any, attribute: str) -> None:
        original: Callable[..., Any] = getattr(place, attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(place, attribute, call)

    counted("checkpoint", pipelines.job, "find_checkpoint")
    counted("checkpoint", actors.work, "find_checkpoint")
    counted("tokenizer in a process of its own", pipelines.unit_steps.isolated_preparer, "IsolatedPool")
    counted("tokenizer in this process", Tokenizer, "__init__")
    counted("template", RowTemplate, "__init__")
    return counts


def test_a_run_finds_its_checkpoint_reads_its_tokenizer_and_compiles_its_templates_once(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, calls: Counter[str]
) -> None:
    corpus = tmp_path / "t.jsonl"
    corpus.write_text("".join(json.dumps({"id": row, "body": "hello"}) + "\n" for row in range(20)))
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(model=tiny_checkpoint(), corpus=corpus, out=tmp_path / "out"))
    result = CliRunner().invoke(app, ["run", str(spec)])
    assert result.exit_code == 0, result.stderr
    assert len(rows_in(tmp_path / "out")) == 20
    assert calls == {"checkpoint": 1, "tokenizer in a process of its own": 1, "template": NUM_TEMPLATES}
