"""`tasks` and `questions` of a spec: what they become, and what is said of those that cannot be."""

from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec.job import LoadedSpec, load_spec
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.several.task import SeveralTask

TEAM = "{kind: classify, text: '{{ body }}', labels: [a, b]}"
REPLY = "{kind: generate, prompt: '{{ body }}', sampling: {temperature: 0}}"
NOW = "{labels: [c, d], question: 'When {{ day }}?'}"
QUESTIONS = (
    f"{{kind: classify, text: '{{{{ body }}}}', windows: mean, questions: {{team: {{labels: [a, b]}}, now: {NOW}}}}}"
)


def load(folder: Path, tasks: str) -> LoadedSpec:
    spec = folder / "job.yaml"
    spec.write_text(f"name: n\nmodel: {{path: m}}\n{tasks}\ninput: {{paths: [in]}}\noutput: {{path: out}}\n")
    return load_spec(spec)


def test_several_tasks_are_one_that_has_them(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"tasks: {{team: {TEAM}, reply: {REPLY}}}\npartial: keep")
    task = loaded.job.task
    assert isinstance(task, SeveralTask)
    assert (list(task.tasks), task.partial) == (["team", "reply"], "keep")
    alone = load(tmp_path, f"task: {TEAM}").job.task
    assert task.tasks["team"] == alone
    assert list(loaded.named_columns) == [(("tasks", "team", "text"), "body"), (("tasks", "reply", "prompt"), "body")]


def test_questions_are_tasks_over_the_one_text(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"task: {QUESTIONS}")
    task = loaded.job.task
    assert isinstance(task, SeveralTask)
    assert task.tasks == {
        "team": LabelsTask(text="{{ body }}", windows="mean", labels=("a", "b")),
        "now": LabelsTask(text="{{ body }}", windows="mean", labels=("c", "d"), question="When {{ day }}?"),
    }
    assert set(loaded.named_columns) == {(("task", "text"), "body"), (("task", "questions", "now", "question"), "day")}


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        (f"task: {TEAM}\ntasks: {{a: {TEAM}, b: {TEAM}}}", r"3: task: stands beside tasks"),
        (f"tasks: {{a: {TEAM}}}", r"tasks: was .*; it must be a mapping of at least two names to a task each"),
        (f"tasks: {{a: {TEAM}, 'b c': {TEAM}}}", "b c"),
        (f"tasks: {{a: {TEAM}, b: {{kind: classify, text: x, labels: [one]}}}}", r"tasks\.b\.labels: has 1 label"),
        (f"tasks: {{a: {TEAM}, b: {{kind: clasify}}}}", r"tasks\.b\.kind: was 'clasify'; it must be generate, classify"),
        (f"tasks: {{a: {TEAM}, b: {{kind: generate, promt: x}}}}", r"tasks\.b\.promt: unknown key; did you mean prompt"),
        (f"tasks: {{a: {TEAM}, b: {{kind: generate, prompt: '{{{{ x'}}}}", r"tasks\.b\.prompt: the template cannot be used"),
        (f"tasks: {{a: {TEAM}, b: {QUESTIONS}}}", r"tasks\.b: has questions; write each of them as one of tasks"),
        (f"task: {TEAM}\npartial: keep", r"partial: goes with tasks, or with task\.questions"),
        (f"tasks: {{a: {TEAM}, b: {REPLY}}}\npartial: both", r"partial: was 'both'; it must be drop or keep"),
        (f"tasks: {{a: {TEAM}, b: {REPLY}}}\nreport: {{truth: label}}", r"report\.truth: was 'label'; a row has several tasks"),
        (f"tasks: {{a: {TEAM}, b: {REPLY}}}\nreport: {{truth: {{b: x}}}}", r"report\.truth\.b: was 'x'; the results of this task"),
        (f"tasks: {{a: {TEAM}, b: {REPLY}}}\nreport: {{truth: {{c: x}}}}", r"report\.truth\.c: was 'x'; no task has this name"),
        (f"task: {TEAM}\nreport: {{truth: {{a: x}}}}", r"report\.truth: was a mapping; a row has one task here"),
        (
            f"tasks: {{a: {TEAM}, b: {{kind: generate, prompt: x, sampling: {{temperature: 1}}}}}}\ndedup: true",
            r"dedup: was true; .*tasks\.b\.sampling\.temperature 1",
        ),
        ("task: {kind: classify, text: x, questions: {a: {labels: [a, b]}}}", r"task\.questions: has one question"),
        (
            "task: {kind: classify, text: x, labels: [a, b], questions: {a: {labels: [a, b]}, b: {labels: [a, b]}}}",
            r"task\.labels: stands beside questions",
        ),
        (
            "task: {kind: classify, text: x, questions: {a: {labels: [a, b]}, b: {question: why}}}",
            r"task\.questions\.b\.labels: is missing; a question has a list of at least two labels",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, tasks: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        load(tmp_path, tasks)


def test_a_cascade_is_for_one_task(tmp_path: Path) -> None:
    spec = tmp_path / "job.yaml"
    spec.write_text(
        f"name: n\ncascade: [{{model: m, until: {{score: 0.9}}}}, {{model: n}}]\ntasks: {{a: {TEAM}, b: {TEAM}}}\n"
        "input: {paths: [in]}\noutput: {path: out}\n"
    )
    with pytest.raises(SpecError, match="a cascade is for a row of one task"):
        load_spec(spec)
