"""Whole runs with quantized weights, on a Ray cluster."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import Scorer
from models.config.quantization import QuantizationConfig
from models.loading.load import load_tokenizer
from pipelines.errors import FingerprintError
from pipelines.job import Job
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.running import drive, job_of, rows_in, write_corpus

CLASSIFY = ClassifyTask(text="{{ body }}")
Checkpoint = Callable[..., Path]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def quantized(job: Job, quantization: str | QuantizationConfig | None) -> Job:
    return replace(job, model=replace(job.model, quantization=quantization))


def test_a_run_scores_with_quantized_weights_and_does_not_resume_with_others(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("sequence-classification")
    corpus = write_corpus(tmp_path / "rows.jsonl", 24)
    job = quantized(job_of(CLASSIFY, model=folder, corpus=corpus, out=tmp_path / "out", unit_rows=8), "nf4")
    assert drive(job).exit_status == 0

    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    rows = rows_in(tmp_path / "out")
    scorer, plain = (Scorer.from_pretrained(folder, dtype="float32", quantization=method) for method in ("nf4", None))
    ids = [tokenizer.encode(row["body"]) for row in rows]
    for row, logits, unquantized in zip(rows, scorer.score(ids), plain.score(ids), strict=True):
        found = torch.tensor(list(row["scores"].values()))
        torch.testing.assert_close(found, logits.softmax(0), atol=1e-5, rtol=0)
        assert (found - unquantized.softmax(0)).abs().max() > 1e-5

    for other in (None, "int8", QuantizationConfig(method="nf4", double_quantization=True)):
        with pytest.raises(FingerprintError, match="quantization"):
            drive(quantized(job, other))
