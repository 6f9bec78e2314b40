"""Whole runs over rows that are too much for their template: they are dead letters, and the other rows' results are right."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from models import SamplingParams
from pipelines.job import Job
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from tests.helpers.models.template_bombs import BOMBS
from tests.helpers.pipelines.fake_engines import fake_engine, logits
from tests.helpers.pipelines.running import drive, job_of, rows_in

Checkpoint = Callable[..., Path]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"


def corpus_of(path: Path, names: Iterable[str]) -> Path:
    """Two rows for each of these names: one that is it, and one that is not."""
    rows = [{"id": 2 * number + is_plain, "bomb": "" if is_plain else name, "body": f"order {number} is late"}
            for number, name in enumerate(names) for is_plain in (0, 1)]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


ROW_BOMBS = {name: source for name, source in BOMBS.items() if "strftime_now" not in source}
"""Those that are templates of a row: the function is one of chat templates alone."""


def dispatching(variable: str, bombs: Mapping[str, str]) -> str:
    """A template that is each of the hostile ones for the rows of its name, and prints what it is given for the others."""
    first, *rest = [f"if {variable} == {name!r} %}}{source}" for name, source in bombs.items()]
    return f"{{% {first}" + "".join(f"{{% el{each}" for each in rest) + "{% else %}"


def results(job: Job) -> dict[int, dict[str, Any]]:
    """The results of a run that is to end well, without the columns that say where they come from."""
    assert drive(job, make_engine=fake_engine).exit_status == 0
    return {row["id"]: row for row in rows_in(Path(job.output.path))}


def expected_of(job: Job, task: ClassifyTask, tmp_path: Path) -> dict[int, dict[str, Any]]:
    """What a run with a plain template makes of the rows without a bomb."""
    plain = replace(job, task=task, output=replace(job.output, path=str(tmp_path / "plain")))
    return {number: row for number, row in results(plain).items() if number % 2}


def test_one_row_with_a_hostile_template_is_a_dead_letter_of_the_run(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    corpus = corpus_of(tmp_path / "rows.jsonl", ["round", "none", "none of them"])
    text = "{% if bomb == 'round' %}" + BOMBS["round"] + "{% else %}{{ body }}{% endif %}"
    model = tiny_checkpoint("sequence-classification")
    job = job_of(ClassifyTask(text=text), model=model, corpus=corpus, out=tmp_path / "out", unit_rows=3)
    found = results(job)
    assert found.keys() == {1, 2, 3, 4, 5}
    tokenizer = AutoTokenizer.from_pretrained(model)
    for number, row in found.items():
        expected = torch.from_numpy(logits(tokenizer(f"order {number // 2} is late")["input_ids"])).softmax(dim=-1)
        assert list(row["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
    [letter] = rows_in(tmp_path / "out", "errors")
    assert letter["kind"] == "template_error"
    assert "it took more than 5 s of computing" in letter["message"]


@pytest.mark.faults
def test_every_known_hostile_template_costs_its_own_row(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "rows.jsonl", ROW_BOMBS)
    model = tiny_checkpoint("sequence-classification")
    text = dispatching("bomb", ROW_BOMBS) + "{{ body }}{% endif %}"
    job = job_of(ClassifyTask(text=text), model=model, corpus=corpus, out=tmp_path / "out", unit_rows=8)
    expected = expected_of(job, ClassifyTask(text="{{ body }}"), tmp_path)
    found = results(job)
    assert {number: row for number, row in found.items() if number % 2} == expected
    letters = rows_in(tmp_path / "out", "errors")
    assert {letter["kind"] for letter in letters} == {"template_error"}
    assert len(letters) + len(found) == 2 * len(ROW_BOMBS)


@pytest.mark.faults
def test_every_known_hostile_chat_template_costs_its_own_row(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The template is the checkpoint's: it looks for the name in the message."""
    folder = shutil.copytree(tiny_checkpoint("causal"), tmp_path / "model")
    (folder / "chat_template.jinja").write_text(dispatching("messages[0].content", BOMBS) + CHAT + "{% endif %}")
    corpus = corpus_of(tmp_path / "rows.jsonl", BOMBS)
    message = {"role": "user", "content": "{{ bomb or body }}"}
    task = GenerateTask(messages=(message,), sampling=SamplingParams(max_tokens=2, temperature=0.0))
    job = job_of(task, model=folder, corpus=corpus, out=tmp_path / "out", unit_rows=8)
    assert drive(job).exit_status == 0
    letters, found = rows_in(tmp_path / "out", "errors"), rows_in(tmp_path / "out")
    assert {row["id"] for row in found if row["id"] % 2} == set(range(1, 2 * len(BOMBS), 2))
    assert {letter["kind"] for letter in letters} == {"template_error"}
    assert len(letters) + len(found) == 2 * len(BOMBS)
