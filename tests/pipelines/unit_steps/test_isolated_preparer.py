"""Rows whose template or text goes over the limits: each is a dead letter, and the others come out as if it was not there."""

import dataclasses
import datetime as dt
import json
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipelines.kinds
from models.config.model_config import ModelConfig
from models.engine.scheduling.request import SamplingParams
from models.errors import OverrunError, OverrunReason, TokenizerError
from models.isolation import ProcessLimits
from models.text.tokenizer import Tokenizer
from pipelines.errors import OverrunsError, TaskError
from pipelines.rows.rows import PreparedUnit, UnitRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import SLICE_CHARS, Doing, Place
from pipelines.tasks.generate import GenerateTask
from pipelines.unit_steps.isolated_preparer import MAX_OVERRUNS, IsolatedPreparer
from pipelines.unit_steps.isolated_work import Workbench, prepare_unit
from pipelines.unit_steps.prepare import Preparer
from tests.helpers.models.jinja_grammar import templates
from tests.helpers.models.template_bombs import BOMBS
from tests.helpers.pipelines.making import make_job, make_rows

CheckpointMaker = Callable[..., Path]

SHORT = ProcessLimits(memory_bytes=512 << 20, step_cpu_s=0.5, step_s=120.0)
SAMPLING = SamplingParams(max_tokens=1)
KINDS = {value for name, value in vars(pipelines.kinds).items() if name.isupper()}
GENERATED, PLAIN = 25, 5


@pytest.fixture(scope="module")
def model(tiny_checkpoint: CheckpointMaker) -> Path:
    return tiny_checkpoint("causal")


def task_of(prompt: str) -> GenerateTask:
    return GenerateTask(prompt=prompt, sampling=SAMPLING)


def rows_of(bodies: Sequence[str], *, first_row: int = 0) -> UnitRows:
    return make_rows(pa.table({"id": range(len(bodies)), "body": bodies}), first_row=first_row)


def isolated(model: Path, task: GenerateTask, *, limits: ProcessLimits = SHORT, **more: int) -> IsolatedPreparer:
    return IsolatedPreparer(make_job(task), model, ModelConfig.from_pretrained(model), limits=limits, **more)


def prepared_here(model: Path, rows: UnitRows) -> dict[int, list[int]]:
    """The token ids of each row's text, by row number."""
    tokenizer = Tokenizer.from_pretrained(model)
    facts = TaskFacts.from_config(ModelConfig.from_pretrained(model), tokenizer, None)
    return ids_by_row(Preparer(make_job(task_of("{{ body }}")), tokenizer, facts).prepare(rows, relative_path="x"))


def ids_by_row(prepared: PreparedUnit) -> dict[int, list[int]]:
    return {int(prepared.row_numbers[request.row]): request.token_ids.tolist() for request in prepared.requests}


def hostile_for(number: int, template: str) -> str:
    return f"{{% if id == {number} %}}{template}{{% else %}}{{{{ body }}}}{{% endif %}}"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("bomb", "said"),
    [
        ("round", "it took more than 0.5 s of computing"),
        pytest.param("tests are not charged", "it took more than 0.5 s of computing", marks=pytest.mark.slow),
        pytest.param("slices", "it took more than 512 MiB of memory", marks=pytest.mark.slow),
        ("list methods of long lists", "more than 4,000,000 steps"),
    ],
)
def test_a_row_with_a_hostile_template_is_a_dead_letter_and_the_others_are_right(
    model: Path, bomb: str, said: str
) -> None:
    rows = rows_of([f"order {row} is late" for row in range(6)], first_row=40)
    expected = prepared_here(model, rows)
    del expected[43]
    before = resident_bytes()
    with closing(isolated(model, task_of(hostile_for(3, BOMBS[bomb])))) as preparer:
        prepared = preparer.prepare(rows)
    assert ids_by_row(prepared) == expected
    [letter] = prepared.failures
    assert (letter.row, letter.kind, letter.input) == (43, "template_error", {"id": 3, "body": "order 3 is late"})
    assert letter.message.startswith("task.prompt: ")
    assert said in letter.message
    assert resident_bytes() - before < 100 << 20


DRAWN = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@settings(DRAWN, max_examples=2)
@given(st.lists(templates(), min_size=GENERATED, max_size=GENERATED))
def test_any_template_costs_its_own_row_only(model: Path, sources: list[str]) -> None:
    check_templates(model, sources)


@pytest.mark.faults
@settings(DRAWN, max_examples=8)
@given(st.lists(templates(), min_size=GENERATED, max_size=GENERATED))
def test_any_of_two_hundred_templates_costs_its_own_row_only(model: Path, sources: list[str]) -> None:
    check_templates(model, sources)


def check_templates(model: Path, sources: list[str]) -> None:
    """Each is that of a row of its own, between rows of which each is printed as it is."""
    branches = "".join(f"{{% elif id == {number} %}}{source}" for number, source in enumerate(sources))
    prompt = f"{{% if id >= {GENERATED} %}}{{{{ body }}}}{branches}{{% endif %}}"
    rows = rows_of([f"order {row} is late" for row in range(GENERATED + PLAIN)])
    plain = {row: ids for row, ids in prepared_here(model, rows).items() if row >= GENERATED}
    before = resident_bytes()
    with closing(isolated(model, task_of(prompt), max_overruns=GENERATED)) as preparer:
        prepared = preparer.prepare(rows)
    ids = ids_by_row(prepared)
    assert {row: ids[row] for row in plain} == plain
    assert {failure.row for failure in prepared.failures} | ids.keys() == set(range(GENERATED + PLAIN))
    assert {failure.kind for failure in prepared.failures} <= KINDS - {"internal_error"}
    assert resident_bytes() - before < 100 << 20


def test_the_date_of_a_job_is_today_for_its_chat_template(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }} on {{ strftime_now('%d %B %Y') }}")
    task = GenerateTask(messages=({"role": "user", "content": "{{ body }}"},), sampling=SAMPLING)
    job = dataclasses.replace(make_job(task), date=dt.date(2024, 2, 5))
    bench = Workbench(job, folder, ModelConfig.from_pretrained(folder))
    assert prepare_unit(bench, rows_of(["late"]), SLICE_CHARS).prompt == "late on 05 February 2024"


def test_a_chat_template_that_is_hostile_to_one_message_costs_that_row_only(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    turns = "{% for message in messages %}{{ message.content }}{% endfor %}"
    said = "{% if 'order 2' in messages[0].content %}" + BOMBS["big division"] + "{% endif %}"
    (folder / "chat_template.jinja").write_text(said + turns)
    task = GenerateTask(messages=({"role": "user", "content": "{{ body }}"},), sampling=SAMPLING)
    with closing(isolated(folder, task)) as preparer:
        prepared = preparer.prepare(rows_of([f"order {row} is late" for row in range(5)]))
    [letter] = prepared.failures
    assert (letter.row, letter.kind) == (2, "template_error")
    assert "task.messages, or the checkpoint's chat template" in letter.message
    assert ids_by_row(prepared).keys() == {0, 1, 3, 4}


def test_a_chat_template_that_is_hostile_to_all_messages_is_refused_with_the_model(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(BOMBS["round"])
    task = GenerateTask(messages=({"role": "user", "content": "{{ body }}"},), sampling=SAMPLING)
    with closing(isolated(folder, task)) as preparer, pytest.raises(TaskError) as caught:
        _ = preparer.fitted
    assert caught.value.place == "model.path"
    assert "it took more than 0.5 s of computing" in str(caught.value)


def with_normalizer(model: Path, folder: Path, *steps: dict[str, Any]) -> Path:
    """A copy of a checkpoint whose tokenizer does more to a text before it reads it."""
    shutil.copytree(model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": list(steps)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    ("name", "steps", "said"),
    [
        pytest.param(
            "explodes",
            [replace({"String": "@"}, "@" * 300)] * 5,
            "memory|process ended|s of computing",
            marks=pytest.mark.slow,
        ),
        ("panics", [replace({"Regex": "(@+@+)+!"}, "x")], "its process ended with status 1: .*retry-limit"),
        pytest.param(
            "takes long", [replace({"String": "@"}, "@ " * 300)] * 2, "s of computing", marks=pytest.mark.slow
        ),
    ],
)
def test_a_row_that_the_tokenizer_does_not_survive_is_a_dead_letter(
    model: Path, tmp_path: Path, name: str, steps: list[dict[str, Any]], said: str
) -> None:
    folder = with_normalizer(model, tmp_path / name, *steps)
    bodies = [f"order {row} is late" for row in range(5)]
    bodies[2] = "order 2 " + "@" * 40
    rows = rows_of(bodies)
    expected = prepared_here(model, rows)
    del expected[2]
    with closing(isolated(folder, task_of("{{ body }}"))) as preparer:
        prepared = preparer.prepare(rows)
    assert ids_by_row(prepared) == expected
    [letter] = prepared.failures
    assert (letter.row, letter.kind) == (2, "tokenizer_error")
    assert re.search(said, letter.message)


def test_what_the_tokenizers_library_raises_is_the_rows(model: Path, tmp_path: Path) -> None:
    """A vocabulary without a token for what is unknown."""
    folder = shutil.copytree(model, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = {"order": 0, "late": 1}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "nothing"}
    tokenizer |= {"model": words, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": [], "post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text("{}")
    with closing(isolated(folder, task_of("{{ body }}"))) as preparer:
        prepared = preparer.prepare(rows_of(["order late", "order 1", "late"]))
    [letter] = prepared.failures
    assert (letter.row, letter.kind) == (1, "tokenizer_error")
    assert "the checkpoint's tokenizer failed on this row's text: WordLevel error" in letter.message
    assert ids_by_row(prepared).keys() == {0, 2}


def test_a_tokenizer_that_cannot_be_loaded_is_told_as_such(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    small = ProcessLimits(memory_bytes=1 << 28, step_cpu_s=1.0, setup_memory_bytes=32 << 20)
    (folder / "tokenizer.json").write_text(json.dumps({"x": "y" * (60 << 20)}))
    with (
        closing(isolated(folder, task_of("{{ body }}"), limits=small)) as preparer,
        pytest.raises(TokenizerError, match="cannot be loaded: it took more than 32 MiB of memory"),
    ):
        preparer.load()


class ScriptedPool:
    """Raises what a script says of a unit, in place of working on it."""

    def __init__(self, setup: object, *, limits: ProcessLimits) -> None:
        self.seen: list[tuple[list[int], int]] = []

    def run(self, work: object, rows: UnitRows, slice_chars: int) -> list[int]:
        numbers: list[int] = rows.row_numbers.tolist()
        self.seen.append((numbers, slice_chars))
        for row in numbers:
            self.look_at(row, numbers, slice_chars)
        return numbers

    def look_at(self, row: int, numbers: list[int], slice_chars: int) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


def ended(reason: OverrunReason, row: int, doing: Doing) -> OverrunError:
    return OverrunError("it was ended", reason, Place(row, doing).number)


def scripted(
    monkeypatch: pytest.MonkeyPatch, model: Path, look_at: Callable[[ScriptedPool, int, list[int], int], None]
) -> tuple[IsolatedPreparer, ScriptedPool]:
    pool = type("Scripted", (ScriptedPool,), {"look_at": look_at})
    monkeypatch.setattr("pipelines.unit_steps.isolated_preparer.IsolatedPool", pool)
    preparer = isolated(model, task_of("{{ body }}"))
    made = preparer._pool
    assert isinstance(made, ScriptedPool)
    return preparer, made


def test_texts_are_tokenized_one_by_one_after_a_slice_that_goes_over(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    def look_at(pool: ScriptedPool, row: int, numbers: list[int], slice_chars: int) -> None:
        if row == 12:
            doing = Doing.TOKENIZING_SLICE if slice_chars else Doing.TOKENIZING
            raise ended("time", 10 if slice_chars else 12, doing)

    preparer, pool = scripted(monkeypatch, model, look_at)
    prepared: Any = preparer.prepare(rows_of(["a"] * 4, first_row=10))
    assert prepared == [10, 11, 13]
    assert pool.seen == [([10, 11, 12, 13], SLICE_CHARS), ([10, 11, 12, 13], 0), ([10, 11, 13], 0)]
    assert preparer.num_overruns == 1


@pytest.mark.parametrize("reason", ["memory", "crash"])
def test_memory_that_other_rows_took_is_not_held_against_a_row(
    monkeypatch: pytest.MonkeyPatch, model: Path, reason: OverrunReason
) -> None:
    def look_at(pool: ScriptedPool, row: int, numbers: list[int], slice_chars: int) -> None:
        if row == 2 and len(numbers) > 1:
            raise ended(reason, 2, Doing.RENDERING)

    preparer, _ = scripted(monkeypatch, model, look_at)
    with pytest.raises(
        OverrunsError, match=r"preparing the rows of a unit was ended: it was ended; .* lower unit_rows"
    ):
        preparer.prepare(rows_of(["a"] * 4))


def test_a_unit_is_given_up_that_has_too_many_rows_over_the_limits(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    def look_at(pool: ScriptedPool, row: int, numbers: list[int], slice_chars: int) -> None:
        if row % 2:
            raise ended("time", row, Doing.RENDERING)

    preparer, pool = scripted(monkeypatch, model, look_at)
    with pytest.raises(
        OverrunsError, match=r"17 rows of a unit went over the limits .* the last row 33: task.prompt: "
    ):
        preparer.prepare(rows_of(["a"] * 1000))
    assert len(pool.seen) == MAX_OVERRUNS + 1
    prepared: Any = preparer.prepare(rows_of(["a"] * 2 * MAX_OVERRUNS))
    assert prepared == list(range(0, 2 * MAX_OVERRUNS, 2))


def test_a_place_is_one_number_and_back() -> None:
    for row in (0, 1, 2**40):
        for doing in Doing:
            assert Place.of(Place(row, doing).number) == Place(row, doing)
    assert len({Place(row, doing).number for row in range(5) for doing in Doing}) == 5 * len(Doing)


def test_rows_are_told_by_their_number_in_the_file(model: Path) -> None:
    """Rows were set apart before, so that positions are other ones."""
    rows = rows_of([f"order {row}" for row in range(4)], first_row=7)
    rows = UnitRows(
        unit=rows.unit,
        rows=rows.rows.kept(np.array([False, True, True, True])),
        row_numbers=rows.row_numbers[1:],
        failures=(),
    )
    with closing(isolated(model, task_of(hostile_for(2, BOMBS["round"])))) as preparer:
        prepared = preparer.prepare(rows)
    assert [failure.row for failure in prepared.failures] == [9]
    assert prepared.row_numbers.tolist() == [8, 10]
