"""A service spec: what its engines are made from, what is refused, and on which line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.serve.spec import ServedSpec, load_service
from pipelines.cluster.engine_settings import engine_settings

SpecWriter = Callable[[str], Path]

HEAD = "name: s\nmodels:\n  - name: m\n    path: s3://bucket/m\n"


def only_model(write_spec: SpecWriter, lines: str) -> ServedSpec:
    """The one model of a service with these lines in its entry."""
    (model,) = load_service(write_spec(f"{HEAD}{lines}")).spec.models
    return model


def problems(path: Path) -> tuple[str, ...]:
    """The problems of a spec, each with the file's name alone."""
    with pytest.raises(SpecError) as caught:
        load_service(path)
    return tuple(problem.replace(str(path), "spec.yaml") for problem in caught.value.problems)


def test_every_engine_size_reaches_the_engines(write_spec: SpecWriter) -> None:
    model = only_model(
        write_spec,
        """\
    engine: {tensor_parallel_size: 2, step_timeout_s: 9, max_model_len: 128, max_num_seqs: 4, max_num_batched_tokens: 512,
             online_batched_tokens: 64, block_size: 16, cache_bytes: 1048576}
""",
    )
    found = engine_settings(model.model, model.engine)
    assert (found.tensor_parallel_size, found.step_timeout_s, found.max_model_len, found.max_num_seqs) == (2, 9, 128, 4)
    assert (found.max_num_batched_tokens, found.online_batched_tokens) == (512, 64)
    assert (found.block_size, found.cache_bytes) == (16, 1048576)


def test_how_a_model_is_loaded_reaches_the_engines(write_spec: SpecWriter) -> None:
    lines = "    dtype: float32\n    quantization: nf4\n    mamba_dt_clamp: none\n"
    found = only_model(write_spec, lines).model
    assert (found.dtype, found.quantization, found.options) == ("float32", "nf4", {"mamba_dt_clamp": "none"})


def test_the_budget_of_online_steps_is_the_engines_own_unless_it_is_given(write_spec: SpecWriter) -> None:
    assert only_model(write_spec, "").engine.online_batched_tokens is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("mamba_dt_clamp: decode", "mamba_dt_clamp: was 'decode'; it must be prefill, both or none"),
        ("engine: {service: other}", "engine.service: belongs to a job spec; a service has engines of its own"),
        (
            "engine: {online_batched_tokens: 0}",
            "engine.online_batched_tokens: was 0; it must be a whole number of tokens, at least 1",
        ),
        (
            "engine: {max_num_batched_tokens: 64, online_batched_tokens: 65}",
            "engine.online_batched_tokens: was 65; it must be at most max_num_batched_tokens, which is 64",
        ),
    ],
)
def test_a_wrong_key_of_a_model_is_refused_with_its_line(write_spec: SpecWriter, line: str, problem: str) -> None:
    assert problems(write_spec(f"{HEAD}    {line}\n")) == (f"spec.yaml:5: models[0].{problem}",)
