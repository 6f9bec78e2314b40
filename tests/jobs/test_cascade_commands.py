"""`millrace calibrate` and `plan` of a cascade, on the demo's classifier: against what transformers says of the same tickets; and what is
said where there is nothing to find."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.demo import CHECKPOINTS
from jobs.demo.corpus import make_tickets
from jobs.spec.job import load_spec
from jobs.spec.preflight import check_before_run
from models.config.model_config import ModelConfig
from pipelines.cascade.shares import reaches
from pipelines.units.planning import plan_units
from tests.helpers.tiny_checkpoints import save_with_tokenizer

SpecWriter = Callable[[str], Path]
NUM_TICKETS = 300
MODEL = CHECKPOINTS / "sequence-classification"
SPEC = """\
name: j
cascade: [{{model: {{path: {small}, dtype: float32}}}}, {{model: {{path: {large}, dtype: float32}}}}]
task: {{kind: classify, text: "{{{{ body }}}}"}}
input: {{paths: [{corpus}]}}
output: {{path: {out}, prefix: r_}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_here")]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """Tickets with their category; a tenth without, and one with a number that is none."""
    rows: list[dict[str, object]] = [
        {"body": ticket.body, "category": ticket.category} for ticket in make_tickets(NUM_TICKETS, seed=77)
    ]
    for number in range(0, NUM_TICKETS, 10):
        rows[number]["category"] = None
    rows[1]["category"] = 1.5
    return rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tickets: list[dict[str, object]]) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "tickets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tickets))
    return path


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same classes that has learned nothing."""
    folder = tmp_path_factory.mktemp("random")
    labels = ModelConfig.from_pretrained(MODEL).id2label
    fields = {"id2label": dict(labels), "label2id": {name: number for number, name in labels.items()}}
    save_with_tokenizer(folder, "qwen3", "sequence-classification", {"max_position_embeddings": 2048, **fields})
    return folder


@pytest.fixture
def spec(write_spec: SpecWriter, corpus: Path, tmp_path: Path) -> Path:
    return write_spec(SPEC.format(small=MODEL, large=MODEL, corpus=corpus, out=tmp_path / "out"))


@pytest.fixture(scope="module")
def said(tickets: list[dict[str, object]]) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Each ticket's label and score, by transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    labels, scores = [], []
    for row in tickets:
        ids = torch.tensor([tokenizer(row["body"])["input_ids"]])
        with torch.inference_mode():
            chances = model(ids).logits[0].softmax(-1)
        labels.append(model.config.id2label[int(chances.argmax())])
        scores.append(float(chances.max()))
    return labels, np.array(scores, np.float32)


def test_a_bound_keeps_the_rows_that_transformers_would_keep(
    spec: Path, tickets: list[dict[str, object]], said: tuple[list[str], npt.NDArray[np.float32]]
) -> None:
    result = invoke("calibrate", spec, "--truth", "category", "--accuracy", "0.95", "--rows", str(NUM_TICKETS))
    assert result.exit_code == 0, result.output
    known = [number for number, row in enumerate(tickets) if isinstance(row["category"], str)]
    assert f"{NUM_TICKETS} rows drawn, {len(known)} with a truth in category" in result.output
    assert (
        "1 have something else there: the truth of row 1 of tickets.jsonl has a number in the place of a label"
        in result.output
    )
    bound = np.float32(re.search(r"cascade\[0\]\.until\.score: (\S+)", result.output)[1])  # type: ignore[index]
    labels, scores = said
    kept = [number for number in known if scores[number] >= bound - np.float32(1e-5)]
    right = sum(labels[number] == tickets[number]["category"] for number in kept)
    shown = re.search(r"kept +([\d,]+) \(.*?\), ([\d.]+)% of them right", result.output)
    assert shown is not None
    assert abs(int(shown[1]) - len(kept)) <= 1, "but for a score at the bound"
    assert float(shown[2]) == pytest.approx(100 * right / len(kept), abs=0.3)
    rest = re.search(
        r"cascade\[1\], sequence-classification-2: answers what is left\n +rows +(\d+) asked", result.output
    )
    assert rest is not None
    assert int(rest[1]) == len(known) - int(shown[1])


def test_where_no_bound_is_proven_it_says_what_would_help(
    write_spec: SpecWriter, corpus: Path, random_model: Path, tmp_path: Path
) -> None:
    spec = write_spec(SPEC.format(small=random_model, large=MODEL, corpus=corpus, out=tmp_path / "out"))
    result = invoke("calibrate", spec, "--truth", "category", "--accuracy", "0.9", "--rows", "100")
    assert result.exit_code == 1, result.output
    assert "no bound was found that keeps answers of which 90% are right; what would help:" in result.output
    assert "--rows" in result.output
    assert "until.score" not in result.output
    assert "cascade[1]" not in result.output, "the large model is not asked"


@pytest.mark.parametrize(
    ("old", "new", "arguments", "problem"),
    [
        ("", "", ("--truth", "team"), "the input has no column team; it has: body, category"),
        ("", "", (), "give --truth COLUMN, the column of the input that says what is right"),
        ('kind: classify, text: "{{ body }}"', "kind: extract, text: x, question: y", ("--truth", "category"), "have no labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_told_at_once(
    spec: Path, old: str, new: str, arguments: tuple[str, ...], problem: str
) -> None:
    if old:
        spec.write_text(spec.read_text().replace(old, new))
    result = invoke("calibrate", spec, "--accuracy", "0.95", *arguments)
    assert result.exit_code == 2, result.output
    assert problem in result.output


def test_a_spec_with_one_model_has_no_bound(write_spec: SpecWriter, corpus: Path, tmp_path: Path) -> None:
    text = f"name: j\nmodel: {{path: {MODEL}}}\ntask: {{kind: classify, text: '{{{{ body }}}}'}}\n"
    spec = write_spec(text + f"input: {{paths: [{corpus}]}}\noutput: {{path: {tmp_path / 'out'}}}\n")
    result = invoke("calibrate", spec, "--truth", "category", "--accuracy", "0.95")
    assert result.exit_code == 2
    assert "the spec has no cascade, so there is no bound to find" in result.output


def test_a_truth_that_says_nothing_is_refused(spec: Path, corpus: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("".join(json.dumps({"body": "late", "category": None}) + "\n" for _ in range(20)))
    result = invoke("calibrate", spec, "--accuracy", "0.95", "--truth", "category", "--set", f"input.paths=[{empty}]")
    assert result.exit_code == 2
    assert "can be held against the column 'category': it is null, empty or missing in every row" in result.output


@pytest.fixture
def bounded(spec: Path, said: tuple[list[str], npt.NDArray[np.float32]]) -> tuple[Path, float]:
    """The spec with a bound, under which transformers has a third of the scores."""
    bound = float(np.quantile(said[1], 0.3))
    old, new = "dtype: float32}}, {model", f"dtype: float32}}, until: {{score: {bound}}}}}, {{model"
    spec.write_text(spec.read_text().replace(old, new))
    return spec, bound


def test_what_reaches_a_model_is_what_the_one_before_is_not_sure_of(
    bounded: tuple[Path, float], said: tuple[list[str], npt.NDArray[np.float32]]
) -> None:
    loaded = load_spec(bounded[0])
    with closing(check_before_run(loaded)) as found:
        first, second = reaches(loaded.job, found.preparers, found.opened.sources, num_rows=NUM_TICKETS)
    assert (first.num_sampled, first.rows, first.tokens) == (NUM_TICKETS, 1.0, 1.0)
    assert second.rows == pytest.approx((said[1] < np.float32(bounded[1])).mean(), abs=0.005)
    assert 0 < second.tokens < 1


def test_a_plan_counts_the_input_once_and_says_what_reaches_each_model(bounded: tuple[Path, float]) -> None:
    with patch("pipelines.estimate.plan_units", wraps=plan_units) as counted:
        result = invoke("plan", bounded[0])
    assert counted.call_count == 1
    assert result.exit_code == 0, result.output
    assert "all rows on sequence-classification, by what the probe cost" in result.output
    assert re.search(r"cascade\[1\], sequence-classification-2\n +rows +[\d.]+% of all", result.output)
    assert re.search(r"the whole cascade\n +tokens +[\d,]+ of prompts\n +time ", result.output)
