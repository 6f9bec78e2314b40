"""The same corpus gives the same output, however a run is cut, sized and spread; with real engines on tiny checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray.data._internal.logical.optimizers import get_execution_plan

from actors.engine.sizing import Bounds
from models import SamplingParams
from models.config.types import Head
from pipelines.cluster.connect import rooms_on
from pipelines.graph.finish_stage import FinishAndCommit
from pipelines.graph.graph import Fleet, Stages, build_graph, concurrent_calls
from pipelines.graph.hand_over_stage import HandOver
from pipelines.graph.read_stage import ReadSettings
from pipelines.io.open_output import open_store
from pipelines.job import EngineSpec, Job
from pipelines.ledger.commit import Committer
from pipelines.ledger.lease import LeaseToken
from pipelines.ledger.permit import Permit
from pipelines.task_base.task import Task
from pipelines.tasks.answer import AnswerTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels.task import LabelsTask
from pipelines.tasks.spans import SpansTask
from pipelines.units.reading import UnitReader
from tests.helpers.pipelines.making import make_facts
from tests.helpers.pipelines.running import GREEDY, contents, drive, job_of, rows_in, write_corpus

Checkpoint = Callable[..., Path]

TASKS: dict[str, tuple[Head, Task]] = {
    "classify": ("sequence-classification", ClassifyTask(text="{{ body }}")),
    "labels": ("causal", LabelsTask(text="{{ body }}", labels=("refund", "late"))),
    "extract": ("token-classification", SpansTask(text="{{ body }}")),
    "answer": ("question-answering", AnswerTask(text="{{ body }}", question="What?")),
    "generate": ("causal", GREEDY),
}

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "rows.jsonl", 120)


class Base:
    """One run of each kind, made when it is first asked for."""

    def __init__(self, corpus: Path, checkpoint: Checkpoint, folder: Path) -> None:
        self._corpus, self._checkpoint, self._folder = corpus, checkpoint, folder

    def job(self, kind: str, out: Path) -> Job:
        head, task = TASKS[kind]
        return job_of(
            task, model=self._checkpoint(head, max_position_embeddings=256), corpus=self._corpus, out=out, unit_rows=16
        )

    def out(self, kind: str) -> Path:
        out = self._folder / kind
        if not out.exists():
            assert drive(self.job(kind, out)).exit_status == 0
        return out


@pytest.fixture(scope="module")
def base(corpus: Path, tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(corpus, tiny_checkpoint, tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("kind", [pytest.param("classify", marks=pytest.mark.faults), "generate"])
def test_two_engines_of_another_size_write_the_same_bytes(base: Base, kind: str, tmp_path: Path) -> None:
    job = base.job(kind, tmp_path / "out")
    assert drive(replace(job, engine=EngineSpec(replicas=2, num_cpus=1, max_num_seqs=5))).exit_status == 0
    assert contents(tmp_path / "out") == contents(base.out(kind))


@pytest.mark.parametrize(
    "kind", ["generate", *(pytest.param(kind, marks=pytest.mark.faults) for kind in ("classify", "extract"))]
)
def test_another_unit_size_gives_the_same_rows(base: Base, kind: str, tmp_path: Path) -> None:
    assert drive(replace(base.job(kind, tmp_path / "out"), unit_rows=50)).exit_status == 0
    assert len(contents(tmp_path / "out")) == 6
    for mine, theirs in zip(rows_in(tmp_path / "out"), rows_in(base.out(kind)), strict=True):
        assert mine == approximate(theirs)


def approximate(value: Any) -> Any:
    """`value` with numbers that may differ by 1e-5."""
    if isinstance(value, dict):
        return {key: approximate(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [approximate(inner) for inner in value]
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["labels", "answer"])
def test_every_kind_of_task_runs(base: Base, kind: str) -> None:
    """Each is a job of the demo too, whose results `tests/jobs/demo/test_demo.py` measures."""
    assert [row["id"] for row in rows_in(base.out(kind))] == list(range(120))


@pytest.mark.faults
def test_a_sampled_run_gives_the_same_rows_again(base: Base, tmp_path: Path) -> None:
    """The seed of each row, and draws that no other row changes, are held without a run in `tests/pipelines/unit_steps` and
    `tests/models/engine`; a run of drawn answers that goes on, in `test_batch.py`."""
    task = replace(GREEDY, sampling=SamplingParams(max_tokens=6, temperature=1.0))
    texts = []
    for place, engine in (
        ("a", EngineSpec(num_cpus=1, max_num_seqs=16)),
        ("b", EngineSpec(num_cpus=1, max_num_seqs=3)),
    ):
        job = replace(base.job("generate", tmp_path / place), task=task, engine=engine, limit=32)
        assert drive(job).exit_status == 0
        texts.append([row["text"] for row in rows_in(tmp_path / place)])
    assert texts[0] == texts[1]


@pytest.mark.filterwarnings("error::ray.util.annotations.RayDeprecationWarning")  # what the next Ray does not have
@pytest.mark.parametrize("num_cpus", [None, 0.5, 1, 2])
@pytest.mark.parametrize("num_further", [0, 1, 2])
def test_the_graph_has_exactly_three_operators_and_two_more_a_step(
    base: Base, num_cpus: float | None, num_further: int, tmp_path: Path
) -> None:
    job = replace(base.job("classify", tmp_path / "out"), engine=EngineSpec(num_cpus=num_cpus))
    room = rooms_on([job.engine] * (num_further + 1), [{"CPU": 8}])[-1]
    facts = make_facts("sequence-classification", names=("a", "b"))
    committer = Committer(store=open_store(job.output), format="jsonl", token=LeaseToken(owner="o", epoch=1))
    stages = Stages(
        read=ReadSettings(job=job, reader=UnitReader(schema=pa.schema([])), permit=Permit(committer=committer)),
        conclude=FinishAndCommit(job=job, facts=facts, committer=committer),
        hand_over=(HandOver(read=b"", step=0, job=job, facts=facts, until=0.5),) * num_further,
    )
    fleet = Fleet(prefix="millrace/none/", bounds=Bounds(least=1, most=1, calls_each=1))
    graph = build_graph(room, stages, lambda: (), num_units=1, fleets=[fleet] * (num_further + 1))
    plan, _ = get_execution_plan(graph._logical_plan)
    names = []
    operator = plan.dag
    while operator.input_dependencies:
        names.append(operator.name)
        (operator,) = operator.input_dependencies
    further = ["MapBatches(AskEngines)", "MapBatches(HandOver)"] * num_further
    assert names == ["MapBatches(FinishAndCommit)", *further, "MapBatches(AskEngines)", "ReadUnitSource"]


@pytest.mark.parametrize(
    ("task", "unit_rows", "max_num_seqs", "calls"),
    [
        (ClassifyTask(text="{{ body }}"), None, 256, 3),
        (GREEDY, None, 256, 5),
        (GREEDY, 100, 256, 10),
        (GREEDY, 16, 256, 50),
        (GREEDY, 4096, 16, 3),
    ],
)
def test_units_in_flight_fill_a_window_of_an_engine_and_its_sequences(
    base: Base, tmp_path: Path, task: Task, unit_rows: int | None, max_num_seqs: int, calls: int
) -> None:
    job = base.job("generate", tmp_path / "out")
    assert (
        concurrent_calls(replace(job, task=task, unit_rows=unit_rows, engine=EngineSpec(max_num_seqs=max_num_seqs)))
        == calls
    )
