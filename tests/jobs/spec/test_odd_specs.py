"""Whatever stands in a spec, a command says what is wrong and where, or does what the spec says: never a traceback, never status 1."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.cli import app
from jobs.serve.environment import SERVE_ENVIRONMENT
from jobs.spec.job import load_spec
from jobs.submission import Submission
from pipelines.job import Job
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.task_base.task import Task
from pipelines.tasks.kinds import KINDS
from pipelines.units.listing import list_sources
from tests.helpers.free_port import free_port
from tests.helpers.jobs.odd_specs import ODD, odd_specs, tree, yaml_of

CheckpointMaker = Callable[..., Path]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prepared_here"),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),  # ray.serve.schema, when imported
]

CLASSIFY: dict[str, Any] = {
    "name": "j",
    "model": {"path": "MODEL", "dtype": "float32", "quantization": None, "storage_options": {}},
    "task": {"kind": "classify", "text": "{{ body }}", "windows": "mean", "window": 64, "stride": 8},
    "input": {"paths": ["INPUT"], "format": "jsonl", "columns": ["id"], "schema": {"id": "int64"}, "storage_options": {}},
    "output": {"path": "OUTPUT", "format": "jsonl", "prefix": "p_", "storage_options": {}},
    "engine": {"replicas": {"min": 1, "max": 2}, "num_cpus": 1, "max_num_seqs": 4, "step_timeout_s": 9, "tensor_parallel_size": 1},
    "unit_rows": 5,
    "max_failed": "1%",
    "seed": 3,
    "date": "2026-01-31",
    "cluster": "local",
}  # fmt: skip
GENERATE: dict[str, Any] = {
    "name": "j",
    "model": {"path": "MODEL"},
    "task": {
        "kind": "generate",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "{{ body }}"}]}, {"role": "user", "content": "x"}],
        "chat_template_kwargs": {"enable_thinking": False},
        "allow_special_tokens": True,
        "sampling": {
            "max_tokens": 3, "min_tokens": 1, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "stop": ["x"],
            "stop_token_ids": [3], "ignore_eos": True, "seed": 1, "logprobs": 2, "repetition_penalty": 1.5, "presence_penalty": 1,
            "frequency_penalty": -1, "logit_bias": {"5": 1.5}, "allowed_token_ids": [5, 6], "bad_words": ["x"], "no_repeat_ngram_size": 2,
        },
    },
    "input": {"paths": ["INPUT"]},
    "output": {"path": "OUTPUT"},
    "engine": {"max_model_len": 64, "max_num_batched_tokens": 64, "block_size": 16, "cache_bytes": 1 << 20, "max_num_seqs": 2},
}  # fmt: skip


def job(**task: Any) -> dict[str, Any]:
    """A job with this task."""
    return {
        "name": "j",
        "model": {"path": "MODEL"},
        "task": task,
        "input": {"paths": ["INPUT"]},
        "output": {"path": "OUTPUT"},
    }


LABELS = job(
    kind="classify", text="{{ body }}", question="Which is it?", labels=["good", "bad"], allow_special_tokens=True
)
SPANS = job(kind="extract", text="{{ body }}", window=64, stride=8)
ANSWER = job(kind="extract", text="{{ body }}", question="Who is {{ id }}?", window=64, stride=8)
EMBED = job(kind="embed", text="{{ body }}", pooling="mean", dimensions=8, normalize=True, prompt="query: ")
RERANK = job(kind="rerank", query="who?", document="{{ body }}", form="pair")
BASES: dict[str, tuple[dict[str, Any], str]] = {
    "generate": (GENERATE, "CHAT"),
    "classify with a head": (CLASSIFY, "CLASSIFIER"),
    "classify with labels": (LABELS, "CHAT"),
    "extract": (SPANS, "TAGGER"),
    "extract an answer": (ANSWER, "READER"),
    "embed": (EMBED, "CHAT"),
    "rerank": (RERANK, "RERANKER"),
}
"""A right spec for every class of task, and its checkpoint."""

SERVICE: dict[str, Any] = {
    "name": "s",
    "models": [{"name": "m", "path": "MODEL", "dtype": "float32", "engine": {"replicas": 1, "num_cpus": 0.5, "online_batched_tokens": 64}}],
    "http": {"host": "127.0.0.1", "port": 0},
    "api_keys": {"file": "KEYS"},
}  # fmt: skip

FUZZ = settings(deadline=None)


@pytest.fixture(scope="module")
def places(tiny_checkpoint: CheckpointMaker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the paths of the specs stand for; the folder is `HERE`."""
    here = tmp_path_factory.mktemp("odd")
    (here / "in.jsonl").write_text("".join(json.dumps({"id": row, "body": "hello"}) + "\n" for row in range(7)))
    (here / "chat").mkdir()
    for file in tiny_checkpoint().iterdir():
        (here / "chat" / file.name).write_bytes(file.read_bytes())
    template = (
        "{% for message in messages %}{% for part in message.content %}{{ part.text or part }}{% endfor %}{% endfor %}"
    )
    (here / "chat" / "chat_template.jinja").write_text(template)
    return {
        "CLASSIFIER": str(tiny_checkpoint("sequence-classification")),
        "TAGGER": str(tiny_checkpoint("token-classification")),
        "READER": str(tiny_checkpoint("question-answering")),
        "RERANKER": str(tiny_checkpoint("sequence-classification", num_labels=1)),
        "CHAT": str(here / "chat"),
        "INPUT": str(here / "in.jsonl"),
        "OUTPUT": str(here / "out"),
        "KEYS": str(here / "keys"),
        "HERE": str(here),
    }


@pytest.fixture(autouse=True)
def elsewhere(places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths lead to an empty folder; a service never comes up, and Ray is never joined."""
    folder = Path(places["HERE"]) / "empty"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    for name, value in SERVE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("jobs.serve.service.joined", _interrupted)


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def check_command(command: str, text: str, places: dict[str, str], *arguments: str) -> None:
    """Runs a command on a spec: it succeeds, or ends with 2 and nothing but problems with their places."""
    path = Path(places["HERE"]) / "spec.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    result = CliRunner().invoke(app, [command, str(path), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    said = [line for line in result.stderr.split("\n") if line and not re.match(r"\d\d:\d\d:\d\d [A-Z]+ ", line)]
    if result.exit_code == 2:
        problems = [line for line in ("\n".join(said)).removeprefix("millrace:").split("\n") if line.strip()]
        assert problems
        for problem in problems:
            assert re.match(rf" ?(--set .*|{re.escape(str(path))}(:\d+)?): .", problem), problem
    else:
        assert result.exit_code == (130 if command == "serve" else 0), result.stderr
    if command == "plan" and result.exit_code == 0:
        check_travels(path, arguments[1:])


def check_travels(path: Path, overrides: Sequence[str]) -> None:
    """A job that can be planned can be recorded, and handed to a cluster as what it is."""
    loaded = load_spec(path, overrides=overrides)
    assert fingerprint_of(loaded.job, list_sources(loaded.job.input))["seed"] == loaded.job.seed
    sent = Submission.of(path, overrides=overrides).to_yaml()
    again = load_spec(_written(path.parent / "sent.yaml", sent)).job
    assert repr(again) == repr(loaded.job)
    assert _hidden(again) == _hidden(loaded.job)


def _hidden(job: Job) -> list[str]:
    """What a job's representation leaves out."""
    return [repr(part.storage_options) for part in (job.model, job.input, job.output)]


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def filled(text: str, model: str, places: dict[str, str]) -> str:
    for name, value in {**places, "MODEL": places[model]}.items():
        text = text.replace(f'"{name}"', json.dumps(value))
    return text


def often(few: int, many: int) -> pytest.MarkDecorator:
    """How many are drawn, anew every time: few, and in `make faults` many."""
    return pytest.mark.parametrize("num_examples", [few, pytest.param(many, marks=pytest.mark.faults)])


@often(20, 80)
@pytest.mark.parametrize("kind", BASES)
def test_an_odd_job_is_refused_with_its_place_or_planned(places: dict[str, str], kind: str, num_examples: int) -> None:
    spec, model = BASES[kind]

    @settings(FUZZ, max_examples=num_examples)
    @given(text=odd_specs(spec))
    def check(text: str) -> None:
        check_command("plan", filled(text, model, places), places)

    check()


def test_what_is_spoiled_is_a_right_spec_of_every_class_of_task(places: dict[str, str]) -> None:
    path, made = Path(places["HERE"]) / "right.yaml", []
    for spec, model in BASES.values():
        path.write_text(filled(yaml_of(tree(spec)), model, places))
        result = CliRunner().invoke(app, ["plan", str(path)])
        assert result.exit_code == 0, result.stderr
        made.append(type(load_spec(path).job.task).__name__)
    own = {
        each.__name__
        for each in Task.__subclasses__()
        if each.__module__.startswith("pipelines.tasks.") and each.kind in KINDS
    }
    assert sorted(made) == sorted(own)


@often(50, 150)
def test_an_odd_service_is_refused_with_its_place_or_started(places: dict[str, str], num_examples: int) -> None:
    @settings(FUZZ, max_examples=num_examples)
    @given(text=odd_specs(SERVICE))
    def check(text: str) -> None:
        check_command("serve", filled(text, "CHAT", places).replace('"port": 0', f'"port": {free_port()}'), places)

    check()


def keys_of(value: Any, path: str = "") -> list[str]:
    """Every key of a spec as `--set` takes it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [(f"{path}.{name}" if path else str(name), item) for name, item in items]
    return [key for name, item in below for key in (name, *keys_of(item, name))]


@often(50, 150)
def test_an_odd_override_is_refused_with_its_place_or_planned(places: dict[str, str], num_examples: int) -> None:
    text = filled(yaml_of(tree(GENERATE)), "CHAT", places)
    keys = [*keys_of(GENERATE), "a", "task.messages.9", "input.paths.0.x", "", ".", "a..b", "task." + "9" * 5000]

    @settings(FUZZ, max_examples=num_examples)
    @given(key=st.sampled_from(keys), value=st.sampled_from(ODD) | st.text(max_size=6))
    @example(key="task.sampling.stop_token_ids", value="[-1]")
    @example(key="task.chat_template_kwargs", value="{b: 1, a: 2}")
    def check(key: str, value: str) -> None:
        check_command("plan", text, places, "--set", f"{key}={value}")

    check()
