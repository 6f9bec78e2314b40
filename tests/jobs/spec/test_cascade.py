"""`cascade` of a spec: what its steps become, and what is refused, at which key."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec.job import EVERYWHERE, load_spec
from pipelines.job import model_names

SpecWriter = Callable[[str], Path]

HEAD = "name: j\ninput: {paths: [a.jsonl]}\noutput: {path: o}\n"
CLASSIFY = "task: {kind: classify, text: '{{ body }}'}\n"
UNSURE = "cascade: goes with tasks that say how sure they are of an answer"
STEP_WITH = "cascade: [{{model: small, until: {{score: 0.9}}}}, {{model: large, engine: {{{0}}}}}]\n"
TWO = "cascade: [{model: small, until: {score: 0.9}}, {model: {path: large, dtype: float32}}]\n"


def problems(write_spec: SpecWriter, text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(write_spec(text))
    return [problem.partition(": ")[2] for problem in caught.value.problems]


def test_a_step_is_a_model_with_its_engines_and_the_bound_before_it(write_spec: SpecWriter) -> None:
    steps = (
        "cascade:\n"
        "  - {model: /m/small, until: {score: 0.9}, engine: {num_cpus: 0.5, max_model_len: 64}}\n"
        "  - {model: {path: /m/mid, dtype: float32}, until: {score: 1}}\n"
        "  - {model: Qwen/Qwen3-4B, engine: {replicas: {min: 1, max: 2}}}\n"
    )
    job = load_spec(write_spec(HEAD + CLASSIFY + steps + "engine: {max_num_seqs: 7, num_cpus: 2}\n")).job
    assert [step.model.path for step in job.steps] == ["/m/small", "/m/mid", "Qwen/Qwen3-4B"]
    assert [step.model.dtype for step in job.steps] == ["auto", "float32", "auto"]
    assert job.bounds == (0.9, 1.0)
    assert [engine.num_cpus for engine in job.engines] == [0.5, 2, 2]
    assert [engine.max_num_seqs for engine in job.engines] == [7, 7, 7]
    assert [engine.max_model_len for engine in job.engines] == [64, None, None]
    assert [(engine.replicas, engine.max_replicas) for engine in job.engines] == [(1, None), (1, None), (1, 2)]
    assert job.step_names == ("small", "mid", "Qwen3-4B")
    assert all(not step.cascade for step in job.steps)


def test_a_job_with_one_model_is_its_only_step(write_spec: SpecWriter) -> None:
    job = load_spec(write_spec(HEAD + CLASSIFY + "model: {path: m}\n")).job
    assert job.steps == (job,)
    assert job.bounds == ()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/final", "/b/final"], ("final", "final-2")),
        (["/a/m-2", "/b/m", "/c/m-2"], ("m-2", "m", "m-2-3")),
        (["s3://bucket/small?X-Amz-Signature=abc", "https://host/large/"], ("small", "large")),
        (["/m", "/m", "/m"], ("m", "m-2", "m-3")),
    ],
)
def test_every_model_has_a_name_of_its_own(paths: list[str], names: tuple[str, ...]) -> None:
    assert model_names(paths) == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CLASSIFY + TWO + "model: {path: m}\n", "model: stands beside cascade, whose steps have the models"),
        (CLASSIFY, "model: this key is required and missing"),
        (CLASSIFY + "cascade: [{model: small}]\n", "cascade: was [{'model': 'small'}]; it must be a list of at least two steps"),
        (CLASSIFY + "cascade: [{model: small}, {model: large}]\n", "cascade[0].until: this key is required and missing; it must be"),
        (CLASSIFY + TWO.replace("0.9", "1.5"), "cascade[0].until.score: was 1.5; it must be a number over 0, at most 1"),
        (CLASSIFY + TWO.replace("0.9", "0"), "cascade[0].until.score: was 0; it must be a number over 0, at most 1"),
        (CLASSIFY + TWO.replace("score", "scores"), "cascade[0].until.scores: unknown key; did you mean score?"),
        (CLASSIFY + TWO.replace("until", "unless"), "cascade[0].unless: unknown key; The keys here are model, until, engine"),
        (CLASSIFY + TWO.replace("float32", "float8"), "cascade[1].model.dtype: was 'float8'; it must be auto, float32"),
        (
            CLASSIFY + TWO.replace("float32}", "float32}, until: {score: 0.5}"),
            "cascade[1].until: stands at the last step, whose answers are kept whatever their score",
        ),
        (CLASSIFY + TWO + "engine: {service: support}\n", "engine.service: a cascade is computed by engines of the job's own"),
        (CLASSIFY + STEP_WITH.format("num_cpus: 2") + "engine: {service: support}\n", "engine.service: a cascade is computed by"),
        (CLASSIFY + STEP_WITH.format("service: support"), "cascade[1].engine.service: a cascade is computed by engines"),
        (CLASSIFY + STEP_WITH.format("online_batched_tokens: 64"), "cascade[1].engine.online_batched_tokens: belongs to a service"),
        (CLASSIFY + TWO + "engine: {online_batched_tokens: 64}\n", "engine.online_batched_tokens: belongs to a service spec"),
        ("task: {kind: generate, prompt: a}\n" + TWO, f"{UNSURE}: task.kind generate"),
        ("task: {kind: embed, text: a}\n" + TWO, f"{UNSURE}: task.kind embed"),
        ("task: {kind: rerank, query: a, document: b}\n" + TWO, f"{UNSURE}: the score"),
        ("task: {kind: extract, text: a}\n" + TWO, f"{UNSURE}: extract without"),
        (
            "task: {kind: classify, text: a, labels: [x, y], calibrate: batch}\n" + TWO,
            f"{UNSURE}: task.calibrate batch compares",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_key(write_spec: SpecWriter, text: str, problem: str) -> None:
    found = problems(write_spec, HEAD + text)
    assert any(each.startswith(problem) for each in found), found


def test_a_batch_file_has_no_cascade(write_spec: SpecWriter) -> None:
    text = "name: j\ninput: {paths: [a.jsonl], format: openai-batch}\noutput: {path: o, format: openai-batch}\n" + TWO
    assert problems(write_spec, text)[0].startswith(f"{UNSURE}: the lines of a batch file")


def test_bounds_may_be_missing_where_they_are_to_be_found(write_spec: SpecWriter) -> None:
    spec = load_spec(write_spec(HEAD + CLASSIFY + "cascade: [{model: small}, {model: large}]\n"), checks=EVERYWHERE)
    assert [further.below for further in spec.job.cascade] == [None]


def test_a_question_has_an_answer_with_a_score(write_spec: SpecWriter) -> None:
    assert load_spec(write_spec(HEAD + "task: {kind: extract, text: a, question: q}\n" + TWO)).job.bounds == (0.9,)
