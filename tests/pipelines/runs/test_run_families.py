"""Every family through whole runs, with real engines. `make test` has one over two shards in `test_groups.py`, and all of them without a
run around them in `tests/models/networks` and `tests/models/engine/test_shard_processes.py`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.config.types import Head
from pipelines.task_base.task import Task
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.spans import SpansTask
from tests.helpers.pipelines.running import GREEDY, contents, drive, job_of, rows_in, write_corpus
from tests.helpers.tiny_families import FAMILIES

TASKS: dict[str, tuple[Head, Task]] = {
    "generate": ("causal", GREEDY),
    "classify": ("sequence-classification", ClassifyTask(text="{{ body }}")),
    "extract": ("token-classification", SpansTask(text="{{ body }}")),
}
NUM_ROWS = 40

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

CASES = [("smollm3", "classify"), ("helium", "extract"), ("zamba2", "classify"), ("phi3", "extract")]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_family_answers_every_row(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, family: str, kind: str
) -> None:
    head, task = TASKS[kind]
    corpus = write_corpus(tmp_path / "rows.jsonl", NUM_ROWS)
    model = tiny_checkpoint(head, family=family, max_position_embeddings=256, **FAMILIES[family].window)
    job = job_of(task, model=model, corpus=corpus, out=tmp_path / "one", unit_rows=16)
    assert drive(job).exit_status == 0
    assert len(rows_in(tmp_path / "one")) == NUM_ROWS


@pytest.mark.parametrize(
    ("family", "size"), [*((family, 2) for family in FAMILIES), *((family, 4) for family in ("qwen3", "zamba2"))]
)
def test_a_family_generates_alike_over_shards(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, family: str, size: int
) -> None:
    corpus = write_corpus(tmp_path / "rows.jsonl", NUM_ROWS)
    fields = {"num_attention_heads": 4, "max_position_embeddings": 256, **FAMILIES[family].window}
    job = job_of(
        GREEDY, model=tiny_checkpoint(family=family, **fields), corpus=corpus, out=tmp_path / "1", unit_rows=16
    )
    assert drive(job).exit_status == 0
    assert len(rows_in(tmp_path / "1")) == NUM_ROWS
    out = replace(job.output, path=str(tmp_path / "split"))
    summary = drive(replace(job, output=out, engine=replace(job.engine, tensor_parallel_size=size)))
    assert summary.exit_status == 0, summary.message
    assert contents(tmp_path / "split") == contents(tmp_path / "1")
