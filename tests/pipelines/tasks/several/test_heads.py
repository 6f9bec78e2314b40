"""Several tasks over a model with a head of its own: each answers a row as it does alone, windows and texts of its own included."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.engine.core import EngineCore
from actors.work import EngineSettings
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.rows.rows import Answers
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import work_of
from pipelines.task_base.task import Task
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.embed import EmbedTask
from pipelines.tasks.several.task import SeveralTask
from pipelines.tasks.spans import SpansTask
from pipelines.unit_steps.finish import finish
from pipelines.unit_steps.prepare import Preparer
from tests.helpers.pipelines.making import make_job, make_rows

LONG = "a text that is longer than the model reads at once, which windows can still take whole, part after part"
ROWS = {"body": ["late again", LONG, "order 7", LONG + LONG], "note": ["first", "second", "", "fourth"]}
NOTE = EmbedTask(text="{{ note }}", pooling="last")
TASKS: dict[str, dict[str, Task]] = {
    "sequence-classification": {"team": ClassifyTask(text="{{ body }}", windows="mean"), "note": NOTE},
    "token-classification": {"names": SpansTask(text="{{ body }}", window=20, stride=5), "note": NOTE},
}


def answered(folder: Path, task: Task, columns: dict[str, list[str]] = ROWS) -> list[dict[str, Any]]:
    """What a unit's rows come to, by the model at `folder`."""
    config, tokenizer = ModelConfig.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    facts = TaskFacts.from_config(config, tokenizer, None)
    facts = replace(facts, own=task.read_own(folder, config, tokenizer))
    preparer = Preparer(make_job(task), tokenizer, facts)
    unit = preparer.prepare(make_rows(pa.table(columns)), relative_path="rows.parquet")
    core = EngineCore(EngineSettings(path=str(folder), dtype="float32", asked=preparer.asked))
    try:
        results = asyncio.run(core.compute(work_of("unit", unit.requests)))
    finally:
        core.close()
    found = finish(make_job(task), facts, unit, Answers(results=results, seconds=1.0))
    rows: list[dict[str, Any]] = found.results.to_pylist()
    return rows


@pytest.mark.parametrize("head", TASKS)
def test_each_task_answers_a_row_as_it_does_alone(tiny_checkpoint: Callable[..., Path], head: str) -> None:
    """Row 2 has no text for one of them; texts of other rows are several windows of the other."""
    folder = tiny_checkpoint(head, max_position_embeddings=48)
    rows = answered(folder, SeveralTask(tasks=TASKS[head], partial="keep"))
    assert [row["errors"] and [name for name, _ in row["errors"]] for row in rows] == [None, None, ["note"], None]
    for name, task in TASKS[head].items():
        alone = answered(folder, task)
        mine = rows if len(alone) == len(rows) else [row for row in rows if not row["errors"]]
        own = alone[0].keys() - {"finish_reason", "prompt_tokens", "completion_tokens"}
        assert any(row[column] for row in alone for column in own)
        for row, expected in zip(mine, alone, strict=True):
            for column in own:
                assert_close(row[f"{name}_{column}"], expected[column])
    assert rows[2]["note_embedding"] is None


def assert_close(mine: Any, theirs: Any) -> None:
    """Equal, but for rounding where they are numbers."""
    if isinstance(theirs, float):
        assert mine == pytest.approx(theirs, abs=1e-5)
    elif isinstance(theirs, list | tuple):
        for one, other in zip(mine, theirs, strict=True):
            assert_close(one, other)
    elif isinstance(theirs, dict):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_close(mine[key], value)
    else:
        assert mine == theirs
