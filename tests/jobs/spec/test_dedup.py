"""`dedup` of a job's spec: what it goes with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec.job import load_spec

GENERATE = "task: {{kind: generate, prompt: '{{{{ a }}}}', sampling: {{temperature: {}}}}}\n"
HEAD = "name: j\nmodel: {path: /m}\ninput: {paths: [/i]}\noutput: {path: /o}\n"
BATCH = (
    "name: j\nmodel: {path: /m}\ninput: {paths: [/i], format: openai-batch}\noutput: {path: /o, format: openai-batch}\n"
)
SpecWriter = Callable[[str], Path]


@pytest.mark.parametrize("task", [GENERATE.format(0), "task: {kind: classify, text: '{{ a }}'}\n"])
def test_greedy_and_one_pass_jobs_may_have_it(write_spec: SpecWriter, task: str) -> None:
    assert load_spec(write_spec(f"{HEAD}{task}dedup: true\n")).job.dedup
    assert not load_spec(write_spec(HEAD + task)).job.dedup


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            HEAD + GENERATE.format(0.7),
            "dedup: was true; rows of equal prompts .* at task.sampling.temperature 0.7: leave",
        ),
        (HEAD + GENERATE.format(0) + "engine: {service: s}\n", "dedup: was true; it is for engines of the job's own"),
        (
            BATCH,
            "dedup: was true; it has no meaning for a batch file",
        ),
    ],
)
def test_others_are_told_why_not(write_spec: SpecWriter, spec: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        load_spec(write_spec(f"{spec}dedup: true\n"))
