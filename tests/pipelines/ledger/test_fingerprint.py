"""What makes a run another run, and what does not."""

import dataclasses
import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from models.config.families import family_options
from models.config.quantization import QuantizationConfig
from models.engine.scheduling.request import SamplingParams
from pipelines.errors import PlanError
from pipelines.job import EngineSpec, Escalation, InputSpec, Job, ModelSpec, OutputSpec
from pipelines.ledger import fingerprint as fingerprint_module
from pipelines.ledger.fingerprint import differences, fingerprint_of
from pipelines.tasks.generate import GenerateTask
from pipelines.units.digest import with_digests
from pipelines.units.listing import list_sources


@pytest.fixture
def job(tmp_path: Path) -> Job:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(3_000_000, np.float32)}, model / "model.safetensors")
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n')
    return Job(
        name="job",
        model=ModelSpec(path=str(model)),
        task=GenerateTask(prompt="{{ a }}"),
        input=InputSpec(paths=(str(tmp_path / "in.jsonl"),), storage_options={"secret": "hush"}),
        output=OutputSpec(path=str(tmp_path / "out"), storage_options={"secret": "hush"}),
    )


def fingerprint(job: Job) -> dict[str, Any]:
    return fingerprint_of(job, list_sources(job.input))


def changed(before: dict[str, Any], job: Job) -> list[str]:
    return [line.split(":")[0] for line in differences(before, fingerprint(job))]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda job: {"seed": 1}, "seed"),
        (lambda job: {"unit_rows": 7}, "unit_rows"),
        (lambda job: {"limit": 7}, "limit"),
        (lambda job: {"task": GenerateTask(prompt="{{ b }}")}, "task.prompt"),
        (
            lambda job: {
                "task": GenerateTask(prompt="{{ a }}", sampling=SamplingParams(temperature=0.0, max_tokens=17))
            },
            "task.sampling.max_tokens",
        ),
        (lambda job: {"task": GenerateTask(prompt="{{ a }}", strip=True)}, "task.strip"),
        (lambda job: {"model": dataclasses.replace(job.model, dtype="float32")}, "dtype"),
        (lambda job: {"model": dataclasses.replace(job.model, quantization="nf4")}, "quantization"),
        (
            lambda job: {"model": dataclasses.replace(job.model, quantization=QuantizationConfig(method="int8"))},
            "quantization.method",
        ),
        (lambda job: {"model": dataclasses.replace(job.model, options={"mamba_dt_clamp": "none"})}, "mamba_dt_clamp"),
        (lambda job: {"engine": EngineSpec(max_model_len=99)}, "max_model_len"),
        (lambda job: {"output": OutputSpec(path="x", format="jsonl")}, "output.format"),
        (lambda job: {"input": dataclasses.replace(job.input, columns=("a",))}, "input.columns"),
    ],
)
def test_what_results_depend_on_is_named(job: Job, change: Callable[[Job], dict[str, Any]], part: str) -> None:
    assert changed(fingerprint(job), dataclasses.replace(job, **change(job))) == [part]


@pytest.mark.parametrize(
    "change",
    [
        lambda job: {"name": "other"},
        lambda job: {"truth": "a"},
        lambda job: {"dedup": True},
        lambda job: {
            "engine": EngineSpec(
                replicas=4, max_num_seqs=3, online_batched_tokens=9, cache_bytes=1 << 30, state_stride=4
            )
        },
        lambda job: {"input": dataclasses.replace(job.input, storage_options={"secret": "changed"})},
        lambda job: {"output": OutputSpec(path="elsewhere")},
    ],
)
def test_what_only_moves_speed_and_place_does_not_count(job: Job, change: Callable[[Job], dict[str, Any]]) -> None:
    assert changed(fingerprint(job), dataclasses.replace(job, **change(job))) == []


@pytest.mark.parametrize(("value", "recorded"), [("prefill", None), ("none", "none"), ("both", "both")])
def test_a_familys_option_is_recorded_as_before_it_was_one(job: Job, value: str, recorded: str | None) -> None:
    """As runs hold it that were begun when `model.mamba_dt_clamp` was a key of its own, which the default was absent from."""
    options = {"mamba_dt_clamp": value}
    found = fingerprint(dataclasses.replace(job, model=dataclasses.replace(job.model, options=options)))
    assert found == fingerprint(job) | {"mamba_dt_clamp": recorded}
    assert list(found)[:5] == ["model", "dtype", "quantization", "mamba_dt_clamp", "max_model_len"]


def test_no_option_of_a_family_has_the_name_of_another_part(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_module, "family_options", dict)
    assert fingerprint(job).keys() & family_options().keys() == set()


def test_a_run_from_before_mamba_dt_clamp_was_a_key_goes_on(job: Job) -> None:
    before = fingerprint(job)
    del before["mamba_dt_clamp"]
    assert changed(before, job) == []


def test_the_record_of_a_generation_has_the_keys_it_had_before_texts_could_be_stripped(job: Job) -> None:
    names = [
        "kind", "prompt", "messages", "prompt_token_ids", "chat_template_kwargs", "sampling", "allow_special_tokens",
    ]  # fmt: skip
    assert list(fingerprint(job)["task"]) == names


SAMPLING_BEFORE_RULES = {
    "max_tokens", "min_tokens", "temperature", "top_k", "top_p", "min_p", "stop", "stop_token_ids", "ignore_eos", "seed",
    "logprobs", "prompt_logprobs",
}  # fmt: skip
"""What records of runs hold that were begun before there were rules over the next token."""


def test_a_run_from_before_there_were_rules_over_tokens_goes_on(job: Job) -> None:
    """A parameter that is added to `SamplingParams` has to be absent from the record where it asks for nothing."""
    before = fingerprint(job)
    sampling = before["task"]["sampling"]
    before["task"]["sampling"] = {name: sampling[name] for name in SAMPLING_BEFORE_RULES}
    assert changed(before, job) == []


@pytest.mark.parametrize("rule", [{"presence_penalty": 0.5}, {"logit_bias": {3: 1.0}}, {"bad_words": ("no",)}])
def test_a_rule_over_tokens_counts(job: Job, rule: dict[str, Any]) -> None:
    task = GenerateTask(prompt="{{ a }}", sampling=SamplingParams(temperature=0.0, **rule))
    [name] = rule
    assert any(
        part.startswith(f"task.sampling.{name}")
        for part in changed(fingerprint(job), dataclasses.replace(job, task=task))
    )


def test_a_checkpoint_may_move_but_not_change(job: Job, tmp_path: Path) -> None:
    before = fingerprint(job)
    (tmp_path / "model").rename(tmp_path / "moved")
    moved = dataclasses.replace(job, model=ModelSpec(path=str(tmp_path / "moved")))
    assert changed(before, moved) == []
    weights = bytearray((tmp_path / "moved/model.safetensors").read_bytes())
    weights[1000:] = os.urandom(len(weights) - 1000)
    (tmp_path / "moved/model.safetensors").write_bytes(weights)
    (tmp_path / "moved/chat_template.jinja").write_text("{{ messages }}")
    assert changed(before, moved) == ["model.model.safetensors.samples", "model.chat_template.jinja"]


def test_one_changed_value_in_a_small_checkpoint_is_seen(job: Job, tmp_path: Path) -> None:
    save_file({"weight": np.zeros(1000, np.float32)}, tmp_path / "model/model.safetensors")
    before = fingerprint(job)
    for position in (0, 500, 999):
        weight = np.zeros(1000, np.float32)
        weight[position] = 1.0
        save_file({"weight": weight}, tmp_path / "model/model.safetensors")
        assert changed(before, job) == ["model.model.safetensors.samples"]


def test_another_input_file_is_named(job: Job, tmp_path: Path) -> None:
    before = fingerprint(job)
    os.utime(tmp_path / "in.jsonl", ns=(1, 1))
    (line,) = differences(before, fingerprint(job))
    assert line.startswith(f'input.files.{tmp_path / "in.jsonl"}: "9 bytes, version ')
    assert line.endswith(' -> "9 bytes, version 1"')


def test_a_touched_input_is_the_same_and_one_written_again_is_not(job: Job, tmp_path: Path) -> None:
    def hashed() -> dict[str, Any]:
        return fingerprint_of(job, with_digests(list_sources(job.input)))

    before = hashed()
    os.utime(tmp_path / "in.jsonl", ns=(1, 1))
    assert differences(before, hashed()) == []
    (tmp_path / "in.jsonl").write_text('{"a": 2}\n')
    (line,) = differences(before, hashed())
    assert line.startswith(f'input.files.{tmp_path / "in.jsonl"}: "9 bytes, version ')


def test_many_input_files_are_kept_as_a_hash(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_module, "MAX_FILES_LISTED", 0)
    before = fingerprint(job)
    (tmp_path / "in.jsonl").write_text('{"a": 10}\n')
    assert "files" not in before["input"]
    assert changed(before, job) == ["input.num_bytes", "input.sha256"]


def test_values_are_shown_old_and_new() -> None:
    assert differences({"a": {"b": 1}, "c": None}, {"a": {"b": "x" * 300}, "c": [1]}) == [
        f'a.b: 1 -> "{"x" * 196}...',
        "c: absent -> [1]",
    ]


def test_storage_options_are_no_part_of_it(job: Job) -> None:
    assert "hush" not in str(fingerprint(job))


def test_a_checkpoint_that_cannot_be_read_is_named(job: Job, tmp_path: Path) -> None:
    (tmp_path / "model/broken.safetensors").symlink_to("nowhere")
    with pytest.raises(PlanError, match=r"the checkpoint's folder .* cannot be read: No such file") as refused:
        fingerprint(job)
    assert refused.value.place == "model.path"


def remote(job: Job, files: dict[str, bytes]) -> Job:
    """The same job with a checkpoint in memory://, with these files in place of its own."""
    folder = Path(job.model.path)
    memory = fsspec.filesystem("memory")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if name in files or not memory.exists(f"{folder}/{name}"):
            memory.pipe_file(f"{folder}/{name}", files.get(name) or (folder / name).read_bytes())
    return dataclasses.replace(job, model=ModelSpec(path=f"memory:/{folder}", storage_options={"secret": "hush"}))


def test_a_checkpoint_behind_a_url_counts_by_what_its_storage_says(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = fingerprint(remote(job, {}))
    assert "hush" not in str(before)
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    assert changed(before, remote(job, {})) == []
    assert changed(before, remote(job, {"tokenizer.json": b"[]"})) == ["model.tokenizer.json"]
    (line,) = differences(fingerprint(remote(job, {})), fingerprint(remote(job, {"model.safetensors": b"another"})))
    assert line.startswith('model.model.safetensors: "12000')
    assert '"7 bytes, version ' in line


def test_further_chat_templates_count(job: Job, tmp_path: Path) -> None:
    before = fingerprint(job)
    (tmp_path / "model/additional_chat_templates").mkdir()
    (tmp_path / "model/additional_chat_templates/tool_use.jinja").write_text("x")
    assert changed(before, job) == ["model.additional_chat_templates/tool_use.jinja"]


def test_a_date_that_the_job_gives_counts(job: Job) -> None:
    assert changed(fingerprint(job), dataclasses.replace(job, date=dt.date(2024, 2, 9))) == ["date"]


def cascade_of(job: Job, *, below: float = 0.9, **model: Any) -> Job:
    """The job, whose rows go on to the same checkpoint."""
    further = Escalation(below=below, model=dataclasses.replace(job.model, **model), engine=EngineSpec())
    return dataclasses.replace(job, cascade=(further,))


def test_every_step_of_a_cascade_counts(job: Job) -> None:
    before = fingerprint(cascade_of(job))
    assert changed(before, cascade_of(job)) == []
    assert changed(before, cascade_of(job, below=0.8)) == ["cascade.step 2.below"]
    assert changed(before, cascade_of(job, dtype="float32")) == ["cascade.step 2.dtype"]
    assert changed(before, cascade_of(job, storage_options={"secret": "changed"})) == []
    two = dataclasses.replace(job, cascade=cascade_of(job).cascade * 2)
    assert {name.rpartition(".")[0].split(".model")[0] for name in changed(before, two)} == {"cascade.step 3"}


def test_a_job_of_one_model_has_no_word_of_cascades(job: Job) -> None:
    """Runs that were begun before there were any go on."""
    assert "cascade" not in fingerprint(job)
    assert {**fingerprint(cascade_of(job)), "cascade": None} == {**fingerprint(job), "cascade": None}
