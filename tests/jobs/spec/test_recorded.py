"""Jobs from what runs have recorded of them: the same again, for every kind of task; and what may
be set of them."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import yaml

from jobs.errors import SpecError, UsageError
from jobs.spec.job import load_spec
from jobs.spec.recorded import document_of_run, recorded_specs
from pipelines.job import Job, OutputSpec
from pipelines.ledger.receipts import Shard
from pipelines.ledger.run_record import RunRecord
from pipelines.parts.template import with_parts
from pipelines.units.listing import PassedOver
from pipelines.units.planning import Plan

LABELS = {"kind": "classify", "text": "{{ body }}", "labels": ["a", "b"]}
MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "{{ body }}"}]},
]
TASKS: dict[str, Any] = {
    "generate": {"kind": "generate", "prompt": "{{ body }}"},
    "generate, all keys": {
        "kind": "generate",
        "messages": MESSAGES,
        "chat_template_kwargs": {"enable_thinking": False, "extra": None},
        "sampling": {
            "max_tokens": 9,
            "min_tokens": 2,
            "temperature": 0.5,
            "top_k": 4,
            "top_p": 0.9,
            "min_p": 0.1,
            "stop": ["\n", "END"],
            "stop_token_ids": [3],
            "seed": 7,
            "logprobs": 2,
            "logit_bias": {"5": 1.5, "6": -100},
            "repetition_penalty": 1.2,
            "presence_penalty": 0.5,
            "no_repeat_ngram_size": 3,
            "bad_words": ["no", "never"],
            "allowed_token_ids": [1, 2, 3],
        },
        "allow_special_tokens": True,
        "strip": True,
    },
    "token ids": {"kind": "generate", "prompt_token_ids": "tokens", "sampling": {"ignore_eos": True}},
    "head": {"kind": "classify", "text": "{{ body }}"},
    "head with windows": {"kind": "classify", "text": "{{ body }}", "windows": "max", "window": 64, "stride": 0},
    "labels": LABELS,
    "labels, all keys": {
        **LABELS,
        "labels": {"a": "the first", "b": "the second"},
        "question": "Which of {{ n }}?",
        "label_texts": {"a": "A"},
        "label_stop": False,
        "examples": [{"text": "x", "label": "a"}, {"text": "y", "label": "b"}],
        "select": "similar",
        "max_examples": 2,
        "calibrate": "prior",
        "label_mass": True,
        "windows": "mean",
    },
    "labels behind a prompt": {
        "kind": "classify",
        "prompt": "Text: {{ body }}\nTopic:",
        "labels": ["a", "b"],
        "calibrate": "batch",
    },
    "labels behind messages": {
        "kind": "classify",
        "messages": MESSAGES,
        "labels": ["a", "b"],
        "chat_template_kwargs": {"enable_thinking": True},
    },
    "questions": {
        "kind": "classify",
        "text": "{{ body }}",
        "questions": {
            "team": {"question": "Which?", "labels": ["a", "b"]},
            "tone": {"labels": {"c": "kind", "d": "rude"}, "calibrate": "prior"},
        },
    },
    "spans": {"kind": "extract", "text": "{{ body }}", "window": 100, "stride": 20},
    "answer": {"kind": "extract", "text": "{{ body }}", "question": "What is {{ thing }}?"},
    "embed": {
        "kind": "embed",
        "text": "{{ body }}",
        "pooling": "mean",
        "dimensions": 8,
        "normalize": False,
        "prompt": "",
    },
    "rerank": {"kind": "rerank", "query": "{{ q }}", "document": "{{ body }}", "instruction": "Judge.", "form": "pair"},
}
MODEL = {"path": "/models/one", "dtype": "float32"}
BESIDE: dict[str, Any] = {
    "all keys": {
        "model": {**MODEL, "quantization": {"method": "nf4", "block_size": 128, "skipped_modules": ["lm_head"]}},
        "input": {
            "paths": ["/in/a.jsonl", "/in/*.jsonl"],
            "columns": ["id"],
            "format": "jsonl",
            "schema": {"id": "int64"},
        },
        "output": {"path": "/out", "format": "jsonl", "prefix": "my_"},
        "engine": {
            "tensor_parallel_size": 2,
            "max_model_len": 128,
            "max_num_seqs": 8,
            "num_cpus": 1.5,
            "replicas": {"min": 1, "max": 3},
            "cache_bytes": 1 << 30,
            "step_timeout_s": 60.0,
        },
        "unit_rows": 16,
        "max_failed": "0.1%",
        "seed": 5,
        "date": "2026-01-31",
        "dedup": True,
    },
    "options": {"model": {"path": "org/name", "quantization": "int8", "options": {"mamba_dt_clamp": "both"}}},
    "replicas": {"engine": {"replicas": 3}, "max_failed": 5},
    "service": {"engine": {"service": "support", "max_model_len": 64}},
    "truth": {"task": TASKS["head"], "report": {"truth": "right"}},
    "several": {
        "task": None,
        "tasks": {"reply": TASKS["generate, all keys"], "team": TASKS["labels, all keys"]},
        "partial": "keep",
        "report": {"truth": {"team": "right"}},
    },
    "cascade": {
        "model": None,
        "task": TASKS["head"],
        "cascade": [
            {"model": "/models/small", "until": {"score": 0.9}, "engine": {"replicas": 2}},
            {"model": {"path": "/models/mid", "dtype": "float32"}, "until": {"score": 0.8}},
            {"model": "/models/large", "engine": {"max_num_seqs": 2, "max_model_len": 32}},
        ],
        "engine": {"max_model_len": 64, "num_cpus": 1.0},
    },
    "batch": {
        "task": None,
        "input": {"paths": ["/in/batch.jsonl"], "format": "openai-batch"},
        "output": {"path": "/out", "format": "openai-batch"},
    },
}
SPECS = {name: {"task": task} for name, task in TASKS.items()} | BESIDE


def spec_of(changes: dict[str, Any]) -> dict[str, Any]:
    whole = {
        "name": "job",
        "model": MODEL,
        "task": TASKS["generate"],
        "input": {"paths": ["/in/rows.jsonl"]},
        "output": {"path": "/out"},
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., Job]:
    def load(changes: dict[str, Any], limit: int | None = None) -> Job:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(spec_of(changes)))
        return load_spec(path, limit=limit).job

    return load


def record_of(job: Job) -> RunRecord:
    """As it is read from an output folder."""
    plan = Plan(
        schema=pa.schema({"body": pa.string()}),
        unit_rows=8,
        num_files=1,
        num_units=1,
        num_rows=1,
        num_bytes=1,
        passed_over=PassedOver(),
    )
    units = Shard(name="units.parquet", num_bytes=1, sha256="0" * 64)
    return RunRecord.from_json(RunRecord.of(job, {"unit_rows": 8}, plan, units, dt.date(2026, 1, 1)).to_json())


@pytest.mark.parametrize("name", SPECS)
def test_a_job_comes_back_from_its_record_as_it_was(job_of: Callable[..., Job], name: str) -> None:
    """What it records is the oracle: all that its results depend on, and all of its spec but
    storage options."""
    job = job_of(SPECS[name], limit=20)
    record = record_of(job)
    specs = recorded_specs(record, OutputSpec(path="/out"), None, overrides=(), allows_changes=False)
    assert specs.changed is specs.planned
    again = specs.planned.job
    assert record_of(again).spec == record.spec
    assert again.task.recorded() == job.task.recorded()
    assert [replace(step, task=job.task) for step in again.steps] == [
        replace(step, task=job.task) for step in job.steps
    ]
    assert (again.limit, specs.date) == (20, dt.date(2026, 1, 1))


def test_it_is_written_as_people_write_it(job_of: Callable[..., Job]) -> None:
    """With the keys that were set, and some defaults; engines of a cascade have in common what all
    have."""
    assert document_of_run(record_of(job_of(SPECS["head"])))["task"] == {
        **TASKS["head"],
        "allow_special_tokens": False,
    }
    cascade = document_of_run(record_of(job_of(SPECS["cascade"])))
    assert cascade["engine"] == {"num_cpus": 1.0}
    assert [step.get("until") for step in cascade["cascade"]] == [{"score": 0.9}, {"score": 0.8}, None]
    assert [step["engine"] for step in cascade["cascade"]] == [
        {"max_model_len": 64, "replicas": 2},
        {"max_model_len": 64},
        {"max_model_len": 32, "max_num_seqs": 2},
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_stand_where_templates_print_them_again(job_of: Callable[..., Job], order: tuple[int, ...]) -> None:
    """A record has them in their places, in the order that was found."""
    parts = ["Shop: {{ shop }}", "Text: {{ body }}", "{% if n %}{{ n }}{% endif %}"]
    task = {"kind": "generate", "messages": [{"role": "user", "content": "{{ parts }}\nTopic:"}]}
    job = job_of({"parts": parts, "task": task})
    settled = replace(job, task=job.task.with_templates(partial(with_parts, parts=[parts[n] for n in order])))
    record = replace(record_of(settled), parts_order=order)
    assert "{{ parts }}" not in orjson.dumps(record.spec["task"]).decode()
    again = recorded_specs(record, OutputSpec(path="/out"), None, overrides=(), allows_changes=False).planned.job
    assert (again.parts, again.task.recorded()) == (tuple(parts), job.task.recorded())


def test_the_options_of_storage_come_from_a_spec_that_is_given(job_of: Callable[..., Job]) -> None:
    options = {"key": "k", "secret": "s"}
    with_storage = {
        "model": {"path": "s3://bucket/model", "storage_options": {"key": "of the model"}},
        "input": {"paths": ["s3://bucket/in.jsonl?X-Amz-Signature=abc"], "storage_options": {"key": "of the input"}},
        "output": {"path": "s3://bucket/out", "storage_options": options},
    }
    given = job_of(with_storage)
    record = record_of(given)
    assert "X-Amz" not in orjson.dumps(record.spec).decode()
    output = OutputSpec(path="s3://bucket/out", storage_options=options)
    job = recorded_specs(record, output, given, overrides=(), allows_changes=False).planned.job
    assert job.model.storage_options == {"key": "of the model"}
    assert job.input == given.input
    assert job.output == output
    sets = ["input.storage_options.key=x", "model.storage_options.client_kwargs.region_name=y"]
    job = recorded_specs(record, output, None, overrides=sets, allows_changes=False).changed.job
    assert job.input.storage_options == {"key": "x"}
    assert job.model.storage_options == {"client_kwargs": {"region_name": "y"}}


def test_a_record_of_another_version_is_refused_by_its_name(job_of: Callable[..., Job]) -> None:
    record = record_of(job_of({}))
    later = replace(
        record, spec={**record.spec, "task": {**record.spec["task"], "tools": []}}, versions={"millrace": "9.1"}
    )
    with pytest.raises(
        UsageError, match=r"/out/run\.json was written by Millrace 9\.1, and this version cannot retry it"
    ):
        recorded_specs(later, OutputSpec(path="/out"), None, overrides=(), allows_changes=False)
    older = replace(record, spec={key: value for key, value in record.spec.items() if key != "engine"})
    with pytest.raises(UsageError, match="cannot retry it: KeyError"):
        recorded_specs(older, OutputSpec(path="/out"), None, overrides=(), allows_changes=False)


MEANS_MORE = "results that are there would mean something else; --allow-changed retries with it all the same"
OF_ROWS = "no retry changes which rows an output has"


@pytest.mark.parametrize(
    ("name", "override", "problem"),
    [
        ("generate", "engine.max_model_len=4096", None),
        ("generate", "engine.replicas=2", None),
        ("generate", "engine={max_model_len: 99, max_num_seqs: 3}", None),
        ("generate", "engine.tensor_parallel_size=2", None),
        ("cascade", "engine.max_num_batched_tokens=512", None),
        ("cascade", "cascade.2.engine.max_model_len=128", None),
        ("generate", "cluster=auto", None),
        ("generate", "task.sampling.max_tokens=17", None),
        ("generate", "task.sampling={max_tokens: 20}", None),
        (
            "generate",
            "task.sampling.max_tokens=15",
            "was 16 and is 15; it may be raised, and not lowered; --allow-changed",
        ),
        ("several", "tasks.reply.sampling.max_tokens=10", None),
        ("several", "tasks.reply.sampling.max_tokens=8", "tasks.reply.sampling.max_tokens: was 9"),
        ("generate", "task.sampling.temperature=1", f"task.sampling.temperature: was 0.0 and is 1.0; {MEANS_MORE}"),
        ("generate", "task.sampling.seed=1", MEANS_MORE),
        ("generate", "model.path=/models/two", "model.path: was '/models/one' and is '/models/two'; results that are"),
        ("generate", "model.dtype=bfloat16", MEANS_MORE),
        ("generate", "model={path: /models/one, dtype: float32}", None),
        ("generate", "model.quantization=int8", MEANS_MORE),
        ("cascade", "cascade.0.until.score=0.5", MEANS_MORE),
        ("head", "task.windows=mean", None),
        ("head", "task={kind: classify, text: '{{ body }}', windows: max, window: 8}", None),
        ("head with windows", "task.windows=mean", "it may be set where it was not, and not be changed"),
        ("head with windows", "task.stride=3", "it may be set where it was not, and not be changed"),
        ("labels", "task.labels=[a, c]", MEANS_MORE),
        ("labels", "task.question=Why?", "task.question: was None and is 'Why?'; a default may be added"),
        ("generate", "task.prompt=\"{{ body | default('') }}\"", None),
        ("generate", "task.prompt=\"{{ body | default('', true) }}\"", None),
        (
            "generate",
            "task.prompt=\"{{ body | d('x') }}!\"",
            "a default may be added to a value, and nothing else changed",
        ),
        ("generate", "task.prompt=\"{{ other | default('') }}\"", "a default may be added"),
        ("generate", 'task.prompt="{{ body | upper }}"', "a default may be added"),
        ("generate", 'task.prompt="{{ body"', "the template"),
        ("generate, all keys", "task.messages.1.content.0.text=\"{{ body | default('') }}\"", None),
        ("generate, all keys", "task.messages.0.content=Be long.", "messages[0].content: was 'Be short.'"),
        ("embed", "task.text=\"{{ body | default('') }}\"", None),
        ("rerank", "task.query=\"{{ q | default('') }}\"", None),
        ("answer", "task.question=\"What is {{ thing | default('it') }}?\"", None),
        ("embed", "task.dimensions=4", MEANS_MORE),
        ("generate", "task={kind: classify, text: '{{ body }}'}", MEANS_MORE),
        ("generate", "seed=1", OF_ROWS),
        ("generate", "unit_rows=2", OF_ROWS),
        ("generate", "name=other", OF_ROWS),
        ("generate", "output.prefix=x_", OF_ROWS),
        ("generate", "input.columns=[id]", OF_ROWS),
        ("generate", "date=2026-03-03", OF_ROWS),
        ("generate", "max_failed=3", OF_ROWS),
    ],
)
def test_what_leaves_results_alone_may_be_set_and_nothing_else(
    job_of: Callable[..., Job], name: str, override: str, problem: str | None
) -> None:
    record, output = record_of(job_of(SPECS[name])), OutputSpec(path="/out")
    if problem is None:
        specs = recorded_specs(record, output, None, overrides=[override], allows_changes=False)
        assert specs.planned is not specs.changed
        return
    with pytest.raises(SpecError) as caught:
        recorded_specs(record, output, None, overrides=[override], allows_changes=False)
    key = override.partition("=")[0]
    assert f"--set {key}: " in str(caught.value)
    assert problem in str(caught.value)


def test_a_default_that_is_there_may_not_be_another(job_of: Callable[..., Job]) -> None:
    record = record_of(
        job_of({"task": {"kind": "generate", "prompt": "{{ a | default('x') }}{% if b %}{{ b }}{% endif %}"}})
    )
    for prompt, is_taken in (
        ("{{ a | default('x') }}{% if b | default(0) %}{{ b | d('') }}{% endif %}", True),
        ("{{ a | default('y') }}{% if b %}{{ b }}{% endif %}", False),
        ("{{ a }}{% if b %}{{ b }}{% endif %}", False),
        ("{{ a | default('x') }}{% if b %}{{ b | trim }}{% endif %}", False),
        ("{{ a | default('x') }}{% if not b %}{{ b }}{% endif %}", False),
    ):
        arguments = (record, OutputSpec(path="/out"), None)
        if is_taken:
            recorded_specs(*arguments, overrides=[f"task.prompt={json.dumps(prompt)}"], allows_changes=False)
        else:
            with pytest.raises(SpecError, match="a default may be added"):
                recorded_specs(*arguments, overrides=[f"task.prompt={json.dumps(prompt)}"], allows_changes=False)


def test_another_model_and_prompt_may_be_set_where_that_is_allowed(job_of: Callable[..., Job]) -> None:
    record, output = record_of(job_of({})), OutputSpec(path="/out")
    sets = ["model.path=/models/two", 'task.prompt="Other: {{ body }}"', "task.sampling.temperature=1"]
    job = recorded_specs(record, output, None, overrides=sets, allows_changes=True).changed.job
    assert job.model.path == "/models/two"
    with pytest.raises(SpecError, match=OF_ROWS):
        recorded_specs(record, output, None, overrides=[*sets, "seed=1"], allows_changes=True)
