"""A job spec: what is accepted, what is refused, and on which line."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec.job import LoadedSpec, load_spec
from models.config.quantization import QuantizationConfig
from models.engine.scheduling.request import SamplingParams
from pipelines.job import MaxFailed
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.labels.task import LabelsTask

SpecWriter = Callable[[str], Path]

TASK_LINE = 5
HEAD = "name: j\nmodel: {path: m}\ninput: {paths: [a.jsonl]}\noutput: {path: o}\n"


def load_task(write_spec: SpecWriter, task: str) -> LoadedSpec:
    return load_spec(write_spec(f"{HEAD}task: {task}\n"))


def problems(path: Path, *overrides: str) -> tuple[str, ...]:
    """The problems of a spec, each with the file's name alone."""
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides=overrides)
    return tuple(problem.replace(str(path), "spec.yaml") for problem in caught.value.problems)


def task_problems(write_spec: SpecWriter, task: str) -> tuple[str, ...]:
    return problems(write_spec(f"{HEAD}task: {task}\n"))


def test_required_keys_are_enough(
    write_spec: SpecWriter, generate_yaml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/qwen3").mkdir(parents=True)
    spec = load_spec(write_spec(generate_yaml), limit=7)
    assert spec.job.name == "label-tickets"
    assert spec.job.model.path == str(tmp_path / "models/qwen3")
    assert spec.job.input.paths == (str(tmp_path / "tickets/*.parquet"),)
    assert spec.job.output.path == str(tmp_path / "out/label-tickets")
    assert spec.job.output.format == "parquet"
    assert spec.job.task == GenerateTask(
        prompt="Summarise: {{ body }}", sampling=SamplingParams(max_tokens=64, temperature=0.0)
    )
    assert spec.job.unit_rows is None
    assert spec.job.max_failed is None
    assert spec.job.limit == 7
    assert spec.cluster is None


def test_every_key_reaches_the_job(write_spec: SpecWriter) -> None:
    spec = load_spec(
        write_spec("""\
name: all
model: {path: s3://bucket/model, dtype: float32, quantization: null, mamba_dt_clamp: both, storage_options: {anon: true}}
task:
  kind: generate
  messages: [{role: user, content: "{{ body }}"}]
  chat_template_kwargs: {enable_thinking: false}
  allow_special_tokens: true
  sampling: {max_tokens: 9, min_tokens: 2, temperature: 1, top_k: 3, top_p: 0.5, min_p: 0.1, stop: [a], stop_token_ids: [4],
             ignore_eos: true, seed: 5, logprobs: 6, repetition_penalty: 1.5, presence_penalty: -1, frequency_penalty: 0.5,
             logit_bias: {"7": -100, "8": 2.5}, allowed_token_ids: [7, 8], bad_words: [b, "c d"], no_repeat_ngram_size: 3}
input: {paths: [s3://bucket/in], format: csv, columns: [id], schema: {id: int64}, storage_options: {anon: true}}
output: {path: /o, format: jsonl, prefix: r_, storage_options: {b: 2}}
engine: {tensor_parallel_size: 1, replicas: 2, num_cpus: 0.5, max_model_len: 128, max_num_seqs: 4, max_num_batched_tokens: 512,
         block_size: 16, cache_bytes: 1048576}
unit_rows: 100
max_failed: 0.1%
seed: 3
date: 2026-01-31
cluster: local
""")
    )
    job = spec.job
    assert (job.model.path, job.model.storage_options) == ("s3://bucket/model", {"anon": True})
    assert job.model.options == {"mamba_dt_clamp": "both"}
    assert job.date == dt.date(2026, 1, 31)
    assert job.task == GenerateTask(
        messages=({"role": "user", "content": "{{ body }}"},),
        chat_template_kwargs={"enable_thinking": False},
        allow_special_tokens=True,
        sampling=SamplingParams(
            max_tokens=9, min_tokens=2, temperature=1.0, top_k=3, top_p=0.5, min_p=0.1, stop=("a",), stop_token_ids=(4,),
            ignore_eos=True, seed=5, logprobs=6, repetition_penalty=1.5, presence_penalty=-1.0, frequency_penalty=0.5,
            logit_bias={7: -100.0, 8: 2.5}, allowed_token_ids=(7, 8), bad_words=("b", "c d"), no_repeat_ngram_size=3,
        ),
    )  # fmt: skip
    assert (job.input.paths, job.input.format, job.input.columns) == (("s3://bucket/in",), "csv", ("id",))
    assert (job.input.schema, job.input.storage_options) == ({"id": "int64"}, {"anon": True})
    assert (job.output.path, job.output.format, job.output.prefix) == ("/o", "jsonl", "r_")
    assert (job.engine.replicas, job.engine.num_cpus, job.engine.max_model_len, job.engine.max_num_seqs) == (
        2,
        0.5,
        128,
        4,
    )
    assert (job.engine.max_num_batched_tokens, job.engine.block_size, job.engine.cache_bytes) == (512, 16, 1048576)
    assert (job.unit_rows, job.max_failed, job.seed, spec.cluster) == (100, MaxFailed(fraction=0.001), 3, "local")


def test_classify_and_extract_become_their_tasks(write_spec: SpecWriter) -> None:
    head = load_task(write_spec, '{kind: classify, text: "{{ a }}", windows: mean, window: 64, stride: 8}').job.task
    assert head == ClassifyTask(text="{{ a }}", windows="mean", window=64, stride=8)
    causal = load_task(write_spec, '{kind: classify, text: "{{ a }}", question: "Q?", labels: [x, y]}').job.task
    assert causal == LabelsTask(text="{{ a }}", question="Q?", labels=("x", "y"))
    extract = load_task(write_spec, '{kind: extract, text: "{{ a }}", question: "Q?"}').job.task
    assert extract == AnswerTask(text="{{ a }}", question="Q?")


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("{}", "task.kind: this key is required and missing; it must be generate, classify, extract, embed or rerank"),
        ("{kind: sum}", "task.kind: was 'sum'; it must be generate, classify, extract, embed or rerank"),
        ("{kind: generate}", "task.kind: generate needs exactly one of prompt, messages and prompt_token_ids; none is given"),
        (
            "{kind: generate, prompt: a, prompt_token_ids: b}",
            "task.prompt_token_ids: stands beside prompt; give exactly one of prompt, messages and prompt_token_ids",
        ),
        (
            "{kind: generate, prompt: a, chat_template_kwargs: {x: 1}}",
            "task.chat_template_kwargs: only goes with messages: a prompt is not put through the chat template",
        ),
        ("{kind: generate, prompt: ''}", "task.prompt: was ''; it must be a template over the row's columns"),
        ("{kind: generate, prompt: a, json_schema: {}}", "task.json_schema: is not available yet"),
        ("{kind: generate, prompt: a, regex: x}", "task.regex: is not available yet"),
        ("{kind: generate, prompt: a, choice: [x]}", "task.choice: is not available yet"),
        ("{kind: generate, messages: [{role: user}]}", "task.messages[0].content: this key is required and missing"),
        ("{kind: generate, messages: [{role: user, content: a, name: b}]}", "task.messages[0].name: unknown key;"),
        ("{kind: generate, prompt: a, promt: b}", "task.promt: unknown key; did you mean prompt? The keys here are kind, prompt,"),
        ("{kind: classify}", "task.kind: classify needs exactly one of text, prompt and messages; none is given"),
        ("{kind: classify, text: a, prompt: b, labels: [x, y]}", "task.prompt: stands beside text; give exactly one of"),
        ("{kind: classify, prompt: b}", "task.prompt: goes with labels, which are missing"),
        ("{kind: classify, prompt: b, labels: [x, y], windows: mean}", "task.windows: goes with text; write what is asked into prompt"),
        ("{kind: classify, prompt: b, labels: {x: one, y: two}}", "task.labels: has descriptions, which go with text"),
        ("{kind: classify, text: b, labels: {x: one, y: ' '}}", "task.labels: has no description of 'y'"),
        ("{kind: classify, text: b, labels: 3}", "task.labels: was 3; it must be a list of at least two different labels, or a mapping"),
        ("{kind: classify, text: b, labels: [x, y], label_texts: {z: ' z'}}", "task.label_texts: has 'z', which is none of labels"),
        ("{kind: classify, text: b, labels: [x, y], calibrate: mean}", "task.calibrate: was 'mean'; it must be none, prior or batch"),
        ("{kind: classify, text: b, calibrate: prior}", "task.calibrate: goes with labels, which are missing"),
        ("{kind: classify, text: b, labels: [x, y], select: similar}", "task.select: goes with examples, which are missing"),
        ("{kind: classify, text: b, labels: [x, y], examples: [{text: a, label: z}]}", "task.examples: number 1 has the label 'z'"),
        ("{kind: classify, text: b, labels: [x, y], examples: [{body: a, label: x}]}", "task.examples: number 1 has the keys body, label"),
        ("{kind: classify, text: b, labels: [x, y], examples: []}", "task.examples: has 0 examples; there may be 1 to 1000"),
        ("{kind: classify, text: b, labels: [x, y], examples: /no/where}", "task.examples: was '/no/where', which cannot be read"),
        ("{kind: classify, text: b, labels: [x, y], max_examples: 65}", "task.max_examples: was 65; it must be a whole number from 1"),
        ("{kind: generate, messages: [{role: user, content: 3}]}", "task.messages[0].content: was 3; it must be a template over the row's"),
        ("{kind: generate, messages: [{role: user, content: [{type: x, text: y}]}]}", "task.messages[0].content[0].type: was"),
        ("{kind: classify, text: a, question: q}", "task.question: goes with labels, which are missing"),
        ("{kind: classify, text: a, question: q, labels: [x]}", "task.labels: has 1 label(s); it must be a list of at least two"),
        ("{kind: classify, text: a, question: q, labels: [x, ' ']}", "task.labels: label number 2 is empty"),
        ("{kind: classify, text: a, question: q, labels: [x, y, x]}", "task.labels: names 'x' twice"),
        ("{kind: classify, text: a, question: q, labels: [yes, no]}", "task.labels[0]: was True; it must be a list"),
        ("{kind: classify, text: a, windows: sum}", "task.windows: was 'sum'; it must be mean, max or null"),
        ("{kind: classify, text: a, window: 3}", "task.window: only goes with windows"),
        ("{kind: classify, text: a, stride: 3}", "task.stride: only goes with windows"),
        ("{kind: extract, text: a, window: 0}", "task.window: was 0; it must be a whole number of tokens, at least 1"),
        ("{kind: extract, text: a, stride: -1}", "task.stride: was -1; it must be a whole number of tokens, 0 or more and below"),
        ("{kind: extract, text: a, window: 4, stride: 4}", "task.stride: was 4; it is the overlap of two windows and must be below"),
        ("{kind: extract, text: a, prompt: b}", "task.prompt: is not available yet in extract"),
    ],
)  # fmt: skip
def test_wrong_task_is_refused_with_its_line_and_key(write_spec: SpecWriter, task: str, problem: str) -> None:
    (found,) = [text for text in task_problems(write_spec, task) if problem.split(": ", maxsplit=1)[0] in text]
    assert found.startswith(f"spec.yaml:{TASK_LINE}: {problem}")


@pytest.mark.parametrize(
    ("sampling", "problem"),
    [
        ("max_tokens: 0", "max_tokens: was 0; it must be at least 1"),
        ("max_tokens: 1.5", "max_tokens: was 1.5; it must be a whole number, at least 1"),
        ("max_tokens: true", "max_tokens: was True; it must be a whole number, at least 1"),
        ("min_tokens: 17", "min_tokens: was 17; it must be from 0 to max_tokens, which is 16"),
        ("temperature: -1", "temperature: was -1.0; it must be from 0 (greedy) to 100"),
        (
            "temperature: 1e-1",
            "temperature: was '1e-1'; it must be a number from 0 (greedy) to 100 (a number stands without",
        ),
        ("top_k: -1", "top_k: was -1; it must be 0 (off) or more"),
        (
            "top_k: 99999999999",
            "top_k: was 99999999999; it must be a whole number, 0 (off) or more, at most 2,147,483,647",
        ),
        ("stop_token_ids: [3, -1]", "stop_token_ids[1]: was -1; it must be a list of token ids, each 0 or more"),
        ("stop_token_ids: [99999999999]", "stop_token_ids[0]: was 99999999999; it must be a list of token ids"),
        ("top_p: 0", "top_p: was 0.0; it must be over 0 and at most 1 (off)"),
        ("min_p: 2", "min_p: was 2.0; it must be from 0 (off) to 1"),
        ("stop: ['']", "stop: was ('',); it must be a list of strings, none of them empty"),
        ("stop: end", "stop: was 'end'; it must be a list of strings, none of them empty"),
        (
            "stop: [12]",
            "stop[0]: was 12; it must be a list of strings, none of them empty (put it in quotes to make it text)",
        ),
        ("seed: -1", "seed: was -1; it must be from 0 to 2**63 - 1"),
        ("logprobs: 101", "logprobs: was 101; it must be from 0 to 100"),
        ("min_tokens: -1", "min_tokens: was -1; it must be a whole number from 0 to max_tokens"),
        ("min_tokens: 1.5", "min_tokens: was 1.5; it must be a whole number from 0 to max_tokens"),
        ("presence_penalty: 2.5", "presence_penalty: was 2.5; it must be a number from -2 to 2"),
        ("frequency_penalty: null", "frequency_penalty: was None; it must be a number from -2 to 2"),
        ("repetition_penalty: 0", "repetition_penalty: was 0; it must be a number over 0 and at most 100"),
        ("repetition_penalty: .nan", "repetition_penalty: was nan; it must be a number over 0"),
        (
            "repetition_penalty: 1e-1",
            "repetition_penalty: was '1e-1'; it must be a number over 0 and at most 100 (a number stands without",
        ),
        ("logit_bias: [5]", "logit_bias: was [5]; it must be a mapping from token ids to numbers from -100 to 100"),
        ("logit_bias: {'5': 101}", "logit_bias.5: was 101; it must be a mapping from token ids to numbers from -100"),
        ("logit_bias: {five: 1}", "logit_bias.five: was 'five'; it must be a mapping from token ids"),
        ("allowed_token_ids: []", "allowed_token_ids: was []; it must be a list of at least one token id, or null"),
        ("allowed_token_ids: [5, -1]", "allowed_token_ids[1]: was -1; it must be a list of at least one token id"),
        ("bad_words: no", "bad_words: was False; it must be a list of texts of 1 to 256 characters"),
        (
            "bad_words: [a, no]",
            "bad_words[1]: was False; it must be a list of texts of 1 to 256 characters (put it in quotes to make it text)",
        ),
        ("no_repeat_ngram_size: 101", "no_repeat_ngram_size: was 101; it must be a whole number from 0 to 100"),
        ("repetition_penality: 1", "repetition_penality: unknown key; did you mean repetition_penalty?"),
        ("n: 2", "n: is not available yet: a row has one answer"),
        ("prompt_logprobs: 1", "prompt_logprobs: is not available in jobs"),
        ("temprature: 1", "temprature: unknown key; did you mean temperature?"),
    ],
)
def test_wrong_sampling_is_refused_with_its_line(write_spec: SpecWriter, sampling: str, problem: str) -> None:
    path = write_spec(f"{HEAD}task:\n  kind: generate\n  prompt: a\n  sampling:\n    {sampling}\n")
    (found,) = problems(path)
    assert found.startswith(f"spec.yaml:9: task.sampling.{problem}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "engine: {tensor_parallel_size: 0}",
            "engine.tensor_parallel_size: was 0; it must be a whole number, at least 1",
        ),
        (
            "engine: {service: a, replicas: 2}",
            "engine.replicas: stands beside service, whose engines are there already",
        ),
        (
            "engine: {replicas: {min: 4, max: 1}}",
            "engine.replicas: was {'min': 4, 'max': 1}; max must be at least min",
        ),
        ("engine: {replicas: {least: 1}}", "engine.replicas: was {'least': 1}; a mapping must have min and max"),
        ("engine: {replicas: null}", "engine.replicas: was None; it must be a whole number from 1 to"),
        ("engine: {replicas: {min: null, max: 1}}", "engine.replicas: was {'min': None, 'max': 1}; it must be"),
        ("engine: {replicas: {min: 1, max: null}}", "engine.replicas: was {'min': 1, 'max': None}; it must be"),
        ("engine: {num_cpus: .inf}", "engine.num_cpus: was inf; it must be a number over 0 and at most 65,536"),
        ("engine: {num_cpus: 70000}", "engine.num_cpus: was 70000; it must be a number over 0 and at most 65,536"),
        (
            "engine: {step_timeout_s: .nan}",
            "engine.step_timeout_s: was nan; it must be a number of seconds over 0, and finite",
        ),
        (
            "engine: {step_timeout_s: .inf}",
            "engine.step_timeout_s: was inf; it must be a number of seconds over 0, and finite",
        ),
        (
            "engine: {block_size: 99999999999999999999}",
            "engine.block_size: was 99999999999999999999; it must be a whole number of tokens, at least 1, at most 2,147,483,647",
        ),
        ("engine: {service: ../x}", "engine.service: was '../x'; it must be the name of a running service"),
        ("engine: {max_num_seqs: 65537}", "engine.max_num_seqs: was 65537; it must be a whole number from 1 to 65,536"),
        (
            "unit_rows: 99999999999999999999",
            "unit_rows: was 99999999999999999999; it must be auto or a whole number from 1 to",
        ),
        ("max_failed: 99999999999999999999", "max_failed: was 99999999999999999999; it must be null"),
        ("cluster: 10.0.0.1", "cluster: was '10.0.0.1'; it must be local, auto or HOST:PORT"),
        ("cluster: ''", "cluster: was ''; it must be local, auto or HOST:PORT"),
        ("engine: {replicas: 0}", "engine.replicas: was 0; it must be a whole number from 1 to"),
        ("engine: {num_cpus: 0}", "engine.num_cpus: was 0; it must be a number over 0"),
        ("engine: {max_num_seqs: 0}", "engine.max_num_seqs: was 0; it must be a whole number from 1 to 65,536"),
        (
            "engine: {gpu_memory_fraction: 1.1}",
            "engine.gpu_memory_fraction: was 1.1; it must be a number over 0 and at most 1",
        ),
        (
            "engine: {online_batched_tokens: 64}",
            "engine.online_batched_tokens: belongs to a service spec; a job's engines have no online requests",
        ),
        (
            "engine: {max_num_batched_tokens: 64, online_batched_tokens: 65}",
            "engine.online_batched_tokens: was 65; it must be at most max_num_batched_tokens, which is 64",
        ),
        (
            "engine: {service: a, online_batched_tokens: 64}",
            "engine.online_batched_tokens: stands beside service, whose engines are there already",
        ),
        ("engine: {cache_bytes: 1, gpu_memory_fraction: 1}", "engine.gpu_memory_fraction: stands beside cache_bytes"),
        ("engine: [1]", "engine: was [1]; it must be a mapping of engine options"),
        ("unit_rows: many", "unit_rows: was 'many'; it must be auto or a whole number from 1 to"),
        ("max_failed: -1", "max_failed: was -1; it must be null, a count of rows such as 100 (at"),
        ("max_failed: 101%", "max_failed: was '101%'; it must be"),
        ("max_failed: 0.1", "max_failed: was 0.1; it must be"),
        ("seed: abc", "seed: was 'abc'; it must be a whole number from 0 to 2**63 - 1"),
        ("enigne: {}", "enigne: unknown key; did you mean engine?"),
    ],
)
def test_wrong_top_level_key_is_refused_with_its_line(
    write_spec: SpecWriter, generate_yaml: str, line: str, problem: str
) -> None:
    (found,) = problems(write_spec(f"{generate_yaml}{line}\n"))
    assert found.startswith(f"spec.yaml:13: {problem}")


def test_a_clamp_that_there_is_not_is_refused_with_its_line(write_spec: SpecWriter, generate_yaml: str) -> None:
    spec = generate_yaml.replace("path: models/qwen3", "path: m\n  mamba_dt_clamp: decode")
    assert problems(write_spec(spec)) == (
        "spec.yaml:4: model.mamba_dt_clamp: was 'decode'; it must be prefill, both or none",
    )


def test_a_familys_option_in_two_spellings_is_refused(write_spec: SpecWriter, generate_yaml: str) -> None:
    both = "path: m\n  options: {mamba_dt_clamp: none}\n  mamba_dt_clamp: both"
    assert problems(write_spec(generate_yaml.replace("path: models/qwen3", both))) == (
        "spec.yaml:5: model.mamba_dt_clamp: stands beside the model's options, which have it too: give it there alone",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("null", None),
        ("int8", "int8"),
        ("nf4", "nf4"),
        ("{method: fp4}", "fp4"),
        (
            "{method: nf4, double_quantization: true, compute_dtype: bfloat16, skipped_modules: [lm_head, k_proj]}",
            QuantizationConfig(
                method="nf4", double_quantization=True, compute_dtype="bfloat16", skipped_modules=("lm_head", "k_proj")
            ),
        ),
        ("{method: int8, int8_threshold: 5.5}", QuantizationConfig(method="int8", int8_threshold=5.5)),
    ],
)
def test_quantization_is_a_name_or_a_mapping(
    write_spec: SpecWriter, generate_yaml: str, given: str, expected: object
) -> None:
    spec = generate_yaml.replace("path: models/qwen3", f"path: m\n  quantization: {given}")
    assert load_spec(write_spec(spec)).job.model.quantization == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("int4", "quantization.method was 'int4'; it must be one of int8, nf4, fp4"),
        ("4", "quantization was 4; it must be one of int8, nf4, fp4, or have a method"),
        ("{method: int8, block_size: 64}", "quantization.block_size has no meaning for method int8"),
        ("{method: nf4, blocks: 64}", "quantization has no blocks; its keys are method, double_quantization"),
        ("{method: nf4, block_size: [64]}", "quantization.block_size was [64]; it must be one of null, 32"),
    ],
)
def test_a_quantization_that_cannot_be_honoured_is_refused(
    write_spec: SpecWriter, generate_yaml: str, given: str, problem: str
) -> None:
    spec = generate_yaml.replace("path: models/qwen3", f"path: m\n  quantization: {given}")
    (found,) = problems(write_spec(spec))
    assert found.startswith(f"spec.yaml:4: model.quantization: {problem}")


@pytest.mark.parametrize("name", ["a/b", "-a", "", "a" * 101])
def test_name_that_is_no_name_is_refused(write_spec: SpecWriter, generate_yaml: str, name: str) -> None:
    (found,) = problems(write_spec(generate_yaml.replace("label-tickets", f"'{name}'", 1)))
    assert found.startswith("spec.yaml:1: name: was ")


@pytest.mark.parametrize("key", ["model.path", "input.paths.0", "output.path"])
def test_a_path_that_no_file_can_have_is_refused(write_spec: SpecWriter, generate_yaml: str, key: str) -> None:
    (found,) = problems(write_spec(generate_yaml), f'{key}="a\\0b"')
    assert r"was 'a\x00b'; no path holds the character U+0000" in found


def test_several_problems_come_in_the_order_of_the_file(write_spec: SpecWriter) -> None:
    found = problems(write_spec("input: {paths: []}\nseed: x\nmodel: {}\n"))
    assert [text.split(": ")[1] for text in found] == ["name", "task", "input.paths", "output", "seed", "model.path"]
    assert found[-1].startswith(
        "spec.yaml:3: model.path: this key is required and missing; it must be a checkpoint folder"
    )


def test_override_is_applied_before_validation(write_spec: SpecWriter, generate_yaml: str) -> None:
    path = write_spec(generate_yaml.replace("max_tokens: 64", "max_tokens: 0"))
    overrides = ["task.sampling.max_tokens=5", "max_failed=0.5%", "input.paths.0=/x/b.jsonl", "engine.replicas=2"]
    job = load_spec(path, overrides=overrides).job
    assert isinstance(job.task, GenerateTask)
    assert job.task.sampling.max_tokens == 5
    assert job.max_failed == MaxFailed(fraction=0.005)
    assert job.input.paths == ("/x/b.jsonl",)
    assert job.engine.replicas == 2


def test_wrong_override_is_named_as_the_place(write_spec: SpecWriter, generate_yaml: str) -> None:
    (found,) = problems(write_spec(generate_yaml), "task.sampling.max_tokens=0")
    assert found == "--set task.sampling.max_tokens: task.sampling.max_tokens: was 0; it must be at least 1"


def test_override_of_a_mapping_is_the_place_of_what_is_in_it(write_spec: SpecWriter, generate_yaml: str) -> None:
    (found,) = problems(write_spec(generate_yaml), "task.sampling={max_tokens: 0}")
    assert found.startswith("--set task.sampling: task.sampling.max_tokens: was 0")


def test_template_error_in_a_block_has_the_line_of_the_block(write_spec: SpecWriter) -> None:
    path = write_spec(f"{HEAD}task:\n  kind: generate\n  prompt: |\n    Hello\n    {{{{ body | }}}}\n    you\n")
    (found,) = problems(path)
    assert found.startswith("spec.yaml:9: task.prompt: the template cannot be used: ")


def test_template_error_in_a_message_names_the_message(write_spec: SpecWriter) -> None:
    (found,) = task_problems(write_spec, "{kind: generate, messages: [{role: user, content: '{% if %}'}]}")
    assert found.startswith(f"spec.yaml:{TASK_LINE}: task.messages[0].content: the template cannot be used: ")


def test_unknown_filter_is_a_template_error(write_spec: SpecWriter) -> None:
    (found,) = task_problems(write_spec, "{kind: extract, text: '{{ a | nosuch }}'}")
    assert "No filter named 'nosuch'" in found


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B"),
        ("Qwen/Qwen3-4B@main", "Qwen/Qwen3-4B@main"),
        ("gs://bucket/m", "gs://bucket/m"),
        ("./Qwen/Qwen3-4B", "{here}/Qwen/Qwen3-4B"),
        ("a/b/c", "{here}/a/b/c"),
        ("m", "{here}/m"),
        ("is/here", "{here}/is/here"),
    ],
)
def test_the_models_path_is_absolute_unless_it_is_a_url_or_a_hub_id(
    write_spec: SpecWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "is/here").mkdir(parents=True)
    job = load_spec(write_spec(HEAD + "task: {kind: classify, text: x}\n"), overrides=[f"model.path={given}"]).job
    assert job.model.path == path.format(here=tmp_path)


def test_a_message_may_be_a_list_of_parts(write_spec: SpecWriter) -> None:
    text = (
        HEAD + "task:\n  kind: generate\n  messages:\n    - role: user\n      content:\n        - {type: text, text: "
    )
    task = load_spec(write_spec(text + "'{{ a }}'}\n")).job.task
    assert isinstance(task, GenerateTask)
    assert task.messages is not None
    assert task.messages[0] == {"role": "user", "content": [{"type": "text", "text": "{{ a }}"}]}
    with pytest.raises(SpecError, match=r":10: task.messages\[0\].content\[0\].text: .*unexpected"):
        load_spec(write_spec(text + "'{{ a'}\n"))


def test_a_date_is_a_date(write_spec: SpecWriter) -> None:
    text = HEAD + "task: {kind: classify, text: x}\ndate: "
    for given in ("2026-01-31", "'2026-01-31'"):
        assert load_spec(write_spec(text + given)).job.date == dt.date(2026, 1, 31)
    for given in ("tomorrow", "7", "2026-01-31 10:00:00"):
        with pytest.raises(SpecError, match=r"date: was .*; it must be a date such as 2026-01-31"):
            load_spec(write_spec(text + given))


def test_a_truth_reaches_the_job_and_the_input_must_have_it(write_spec: SpecWriter) -> None:
    spec = load_spec(write_spec(f"{HEAD}task: {{kind: classify, text: '{{{{ body }}}}'}}\nreport: {{truth: team}}\n"))
    assert spec.job.truth == "team"
    assert (("report", "truth"), "team") in spec.named_columns


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("{kind: generate, prompt: '{{ body }}'}", "generate"),
        ("{kind: extract, text: '{{ body }}', question: Who}", "extract"),
        ("{kind: embed, text: '{{ body }}'}", "embed"),
        ("{kind: rerank, query: a, document: '{{ body }}'}", "rerank"),
    ],
)
def test_a_truth_is_refused_where_results_have_no_labels(write_spec: SpecWriter, task: str, kind: str) -> None:
    (problem,) = problems(write_spec(f"{HEAD}task: {task}\nreport: {{truth: team}}\n"))
    assert problem.startswith(
        f"spec.yaml:6: report.truth: was 'team'; the results of this task of the kind {kind} have no labels"
    )
