"""A rule over the next token that is defined here alone: its file and its line in the table, in a
copy of the packages. With no other change it is a keyword of `SamplingParams`, a field of HTTP
bodies and a key of jobs, and `millrace run` applies it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from tests.helpers.models.near_ties import assert_greedy
from tests.helpers.models.tiny_engine import SHARP
from tests.helpers.pipelines.running import rows_in, short_folder, write_corpus

ROOT = Path(__file__).parents[2]
TABLE = "models/engine/rules/table.py"
LINES = {
    "from models.engine.rules.min_tokens import MinTokens\n": "from models.engine.rules.multiples import Multiples\n",
    "    AllowedTokens,\n)": "    Multiples,\n)",
}
"""What stands in the table, and what is written behind the first, and before the end of the
second."""

RULE = '''\
"""`multiples_of`: only tokens whose ids are multiples of it, and none like the one before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.engine.rules.kinds import Whole
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Multiples(Rule):
    """See the module."""

    looks_back: ClassVar = True

    multiples_of: int = parameter(0, Whole(least=0, most=7), "only tokens whose ids are multiples of it, 0 is off")

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[Multiples]]") -> None:
        import torch

        ids = torch.arange(logits.shape[1])
        for index, row in enumerate(rows):
            logits[index, (ids % row.rule.multiples_of > 0) | (ids == row.tokens[-1])] = -torch.inf
'''
MULTIPLES_OF = 3
SHOW = """
import json
from actors.http.bodies.schema import ChatBody, CompletionBody
from models import SamplingParams
from pipelines.tasks.sampling_yaml import SamplingYaml

try:
    SamplingParams(multiples_of=8)
except Exception as error:
    said = str(error)
bodies = [body.model_json_schema()["properties"]["multiples_of"] for body in (ChatBody, CompletionBody)]
print(json.dumps({
    "key": SamplingYaml(multiples_of=3).to_params() == SamplingParams(temperature=0.0, multiples_of=3),
    "bodies": bodies,
    "error": said,
}))
"""


@pytest.fixture(scope="module")
def house() -> Iterator[Path]:
    """A copy of the packages with the rule, in which the state before is committed."""
    with short_folder() as folder:
        for package in ("models", "actors", "pipelines", "jobs"):
            shutil.copytree(
                ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
            )
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--message", "Before")
        (folder / "models/engine/rules/multiples.py").write_text(RULE)
        text = (folder / TABLE).read_text()
        for before, added in LINES.items():
            assert text.count(before) == 1
            text = text.replace(
                before, before + added if before.startswith("from") else before.removesuffix(")") + added
            )
        (folder / TABLE).write_text(text)
        yield folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def python(folder: Path, *arguments: str) -> str:
    """What this Python prints with the packages of a folder."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_rule_is_one_file_and_its_line_in_the_table(house: Path) -> None:
    git(house, "add", "--intent-to-add", ".")
    changed = [line.split("\t") for line in git(house, "diff", "--numstat").splitlines()]
    assert changed == [
        [str(RULE.count("\n")), "0", "models/engine/rules/multiples.py"],
        ["2", "0", TABLE],  # the line, and the import of what stands in it
    ]


@pytest.mark.slow
def test_its_parameter_is_known_in_python_in_specs_and_over_http(house: Path) -> None:
    found = json.loads(python(house, "-c", SHOW))
    assert found["key"] is True
    assert found["error"] == "sampling parameter multiples_of was 8; it must be a whole number from 0 to 7"
    for field in found["bodies"]:
        assert field["anyOf"] == [{"type": "integer", "minimum": 0, "maximum": 7}, {"type": "null"}]
        assert field["description"] == "only tokens whose ids are multiples of it, 0 is off"


@pytest.mark.cluster("own")
def test_a_run_applies_it(house: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny_checkpoint(max_position_embeddings=256, **SHARP)
    corpus = write_corpus(tmp_path / "rows.jsonl", 12)
    spec = {
        "name": "multiples",
        "model": {"path": str(model), "dtype": "float32"},
        "task": {
            "kind": "generate",
            "prompt": "{{ body }}",
            "sampling": {"max_tokens": 10, "ignore_eos": True, "logprobs": 0, "multiples_of": MULTIPLES_OF},
        },
        "input": {"paths": [str(corpus)]},
        "output": {"path": str(tmp_path / "out"), "format": "jsonl"},
        "cluster": "local",
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    python(house, "-m", "jobs", "run", str(tmp_path / "spec.yaml"))
    rows = rows_in(tmp_path / "out")
    assert len(rows) == 12
    oracle: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row in rows:
        tokens = [token["token_id"] for token in row["logprobs"]]
        assert {token % MULTIPLES_OF for token in tokens} == {0}
        prompt = tokenizer(row["body"])["input_ids"]
        assert_greedy(oracle, prompt, tokens, logits_processor=LogitsProcessorList([_multiples]), eos_token_id=None)


def _multiples(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The same rule as transformers has its own."""
    all_ids = torch.arange(scores.shape[1])
    return scores.masked_fill((all_ids % MULTIPLES_OF > 0) | (all_ids == ids[0, -1]), -torch.inf)
