"""Cascades: a row is answered by the first model that is sure enough of it, as that model alone answers it."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.compare.compare import compare_runs
from jobs.compare.sides import Sides
from jobs.report.report import write_report
from models import Scorer
from pipelines.errors import FingerprintError
from pipelines.io.open_output import open_store
from pipelines.job import EngineSpec, Escalation, Job, ModelSpec
from pipelines.ledger.check import check_run
from pipelines.ledger.run_record import RUN
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.labels.task import LabelsTask
from tests.helpers.pipelines.fake_engines import engine_by_model
from tests.helpers.pipelines.running import contents, drive, job_of, rows_in, write_corpus

Checkpoint = Callable[..., Path]
NUM_ROWS = 60
UNIT_ROWS = 20
CLASSIFY = ClassifyTask(text="{{ body }}")
LONG = {"id": 7, "body": "alpha beta " * 10}
NULL = {"id": 9, "body": None}

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which one is too long for a model of 64 tokens, one has no text, and one is no JSON."""
    bad = {7: json.dumps(LONG).encode(), 9: json.dumps(NULL).encode(), 11: b"{not json"}
    return write_corpus(tmp_path_factory.mktemp("corpus") / "rows.jsonl", NUM_ROWS, bad=bad)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Checkpoint) -> tuple[Path, Path]:
    """A small model and a large one, of the same classes, with weights of their own that are not all unsure."""
    found = [
        tiny_checkpoint("sequence-classification", num_labels=2, hidden_size=size, initializer_range=0.4)
        for size in (32, 64)
    ]
    return found[0], found[1]


def cascade_of(job: Job, model: Path, *, below: float | None) -> Job:
    """The job, whose rows go on to another model."""
    further = Escalation(
        below=below, model=ModelSpec(path=str(model), dtype="float32"), engine=EngineSpec(num_cpus=1, max_num_seqs=16)
    )
    return replace(job, cascade=(*job.cascade, further), unit_rows=UNIT_ROWS)


def by_id(out: Path, folder: str = "data") -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in rows_in(out, folder)}


def test_each_row_has_the_answer_of_the_first_model_that_is_sure_enough(
    models: tuple[Path, Path], corpus: Path, tmp_path: Path
) -> None:
    small, large = models
    short = EngineSpec(num_cpus=1, max_num_seqs=16, max_model_len=64)
    first = job_of(CLASSIFY, model=small, corpus=corpus, out=tmp_path / "both", unit_rows=UNIT_ROWS, engine=short)
    second = job_of(CLASSIFY, model=large, corpus=corpus, out=tmp_path / "large", unit_rows=UNIT_ROWS)
    assert drive(second).exit_status == 0
    of_small, of_large = scores_of(small, corpus, most_tokens=64), by_id(tmp_path / "large")
    middle = len(of_small) // 2
    bound = float(np.mean(sorted(map(max, of_small.values()))[middle - 1 : middle + 1]))  # that no row has
    out = tmp_path / "both"
    job = cascade_of(first, large, below=bound)
    assert drive(job).exit_status == 0
    rows = rows_in(out)
    assert [row["id"] for row in rows] == [number for number in range(NUM_ROWS) if number not in (9, 11)]
    names = job.step_names
    for row in rows:
        sure = of_small.get(row["id"])
        is_kept = sure is not None and max(sure) >= bound
        assert row.pop("model") == names[0 if is_kept else 1]
        alone = of_large[row["id"]]
        scores = sure if sure is not None and is_kept else list(alone["scores"].values())
        assert list(row["scores"].values()) == pytest.approx(scores, abs=1e-5)
        assert row["label"] == max(row["scores"], key=row["scores"].get)
        assert row.keys() == alone.keys()
    assert 7 in of_large
    assert 7 not in of_small, "the row is too long for the small model"
    assert {letter["row"]: letter["kind"] for letter in rows_in(out, "errors")} == {
        letter["row"]: letter["kind"] for letter in rows_in(tmp_path / "large", "errors")
    }
    counts = [json.loads(path.read_bytes()) for path in (out / "receipts").iterdir()]
    kept = Counter(row["model"] for row in rows_in(out))
    for number, name in enumerate(names):
        assert sum(each["steps"][number]["num_kept"] for each in counts) == kept[name]
    assert sum(each["steps"][0]["num_asked"] for each in counts) == NUM_ROWS - 1  # all but the one that is no JSON
    assert sum(each["steps"][1]["num_asked"] for each in counts) == NUM_ROWS - 1 - kept[names[0]]
    assert all(sum(step["prompt_tokens"] for step in each["steps"]) == each["prompt_tokens"] for each in counts)
    assert check_run(open_store(job.output)) == []
    check_report(job, counts, bound)
    check_comparison(job, second)


def scores_of(model: Path, corpus: Path, *, most_tokens: int) -> dict[int, list[float]]:
    """The probabilities that the model alone gives to each row that has a text, and no longer one."""
    scorer, found = Scorer.from_pretrained(model, dtype="float32"), {}
    assert scorer.tokenizer is not None
    for number, line in enumerate(corpus.read_bytes().splitlines()):
        if number not in (9, 11):
            ids = scorer.tokenizer.encode(json.loads(line)["body"])
            if len(ids) <= most_tokens:
                found[number] = scorer.score([ids])[0].softmax(dim=-1).tolist()
    return found


def check_report(job: Job, counts: list[dict[str, Any]], bound: float) -> None:
    """The report has the sums of the receipts, in numbers and on its page."""
    write_report(job.output)
    folder = Path(job.output.path)
    models = json.loads((folder / "report.json").read_bytes())["models"]
    assert [(model["name"], model["until"]) for model in models] == list(
        zip(job.step_names, (bound, None), strict=True)
    )
    for number, model in enumerate(models):
        assert model["rows_kept"] == sum(each["steps"][number]["num_kept"] for each in counts)
        assert model["prompt_tokens"] == sum(each["steps"][number]["prompt_tokens"] for each in counts)
    page = (folder / "report.html").read_text()
    assert f"<td>{job.step_names[0]}</td>" in page
    assert f'<td class="number">{models[0]["rows_kept"]}</td>' in page


def check_comparison(job: Job, large: Job) -> None:
    """A cascade is compared with a run of one of its models, by label."""
    found = compare_runs(Sides.open(job.output, large.output), on_difference=lambda row: None)
    rows, others = by_id(Path(job.output.path)), by_id(Path(large.output.path))
    same = sum(rows[number]["label"] == others[number]["label"] for number in rows)
    assert found.tally.num_equal == same


def linked(folder: Path, checkpoint: Path) -> Path:
    """The checkpoint in a folder of its own."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_a_run_that_goes_on_asks_nothing_twice_and_is_whole(
    tiny_checkpoint: Checkpoint, corpus: Path, tmp_path: Path
) -> None:
    """With a prior for each model, which is in the record; a unit of which nothing is left goes past the second model."""
    out = tmp_path / "out"
    small, large = (linked(tmp_path / name, tiny_checkpoint()) for name in ("a", "bb"))
    task = LabelsTask(text="{{ body }}", labels=("refund", "late"), calibrate="prior")
    job = cascade_of(job_of(task, model=small, corpus=corpus, out=out), large, below=0.8)
    assert drive(job, make_engine=engine_by_model).exit_status == 0
    whole = contents(out)
    trial = json.loads((out / RUN).read_bytes())["trial"]
    assert len(trial) == 4
    assert np.exp(trial[:2]).sum() == pytest.approx(1)
    assert np.exp(trial[2:]).sum() == pytest.approx(1)
    assert trial[:2] != trial[2:]
    assert {row["model"] for row in rows_in(out)} == {"a", "bb"}
    for receipt in sorted((out / "receipts").iterdir())[1:]:
        receipt.unlink()
    assert drive(job, make_engine=engine_by_model).exit_status == 0
    assert contents(out) == whole
    assert check_run(open_store(job.output)) == []
    with pytest.raises(FingerprintError, match=r"cascade\.step 2\.below: 0\.8 -> 0\.7"):
        drive(cascade_of(replace(job, cascade=()), large, below=0.7), make_engine=engine_by_model)
    with pytest.raises(FingerprintError, match=r"cascade\.step 2\.below: 0\.8 -> absent"):
        drive(replace(job, cascade=()), make_engine=engine_by_model)


def test_units_of_which_nothing_is_left_need_no_further_engine(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    small, large = (linked(tmp_path / name, tiny_checkpoint("sequence-classification")) for name in ("a", "bb"))
    (large / "refuses").touch()
    corpus = write_corpus(tmp_path / "rows.jsonl", NUM_ROWS)
    job = job_of(CLASSIFY, model=small, corpus=corpus, out=tmp_path / "out")
    assert drive(cascade_of(job, large, below=0.5), make_engine=engine_by_model).exit_status == 0
    assert {row["model"] for row in rows_in(tmp_path / "out")} == {"a"}
    assert len(rows_in(tmp_path / "out")) == NUM_ROWS
