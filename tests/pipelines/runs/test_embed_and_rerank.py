"""Embedding and reranking as jobs, from a spec to the rows of a run, equal to transformers and the published formulas."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import SpecError
from jobs.report.report import gather
from jobs.report.source import RunOutput
from jobs.spec.job import LoadedSpec, load_spec
from jobs.spec.preflight import check_before_run
from pipelines.ledger.fingerprint import differences, fingerprint_of
from pipelines.units.listing import list_sources
from tests.helpers.jobs.answered_here import answered_here
from tests.helpers.models import tiny_tokenizers
from tests.helpers.models.sentence_checkpoints import QUERY_PROMPT, add_modules, dense, new_pooling, without_template
from tests.helpers.pipelines.running import drive, rows_in
from tests.helpers.tiny_checkpoints import save_checkpoint, save_with_tokenizer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

BODIES = ("the order is late", "naïve café — 日本語 😀", "a <|im_end|> that is text", "x", "many words " * 6)
QUESTIONS = ("how are you", "日本語", "where is it", "tabs\tand spaces", "?")


def spec_of(tmp_path: Path, model: Path, task: str, **output: Any) -> LoadedSpec:
    """A job over the bodies and questions, and a row that is too long."""
    rows = {"body": [*BODIES, "long " * 600], "question": [*QUESTIONS, "long?"]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    file = tmp_path / "job.yaml"
    file.write_text(
        f"name: vectors\nmodel: {{path: {model}, dtype: float32}}\ntask: {task}\nengine: {{num_cpus: 1}}\nmax_failed: 1\n"
        f"input: {{paths: [{tmp_path}/rows.parquet], columns: [question]}}\noutput: {{path: {tmp_path}/out}}\n"
    )
    return load_spec(file)


def results(tmp_path: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "out/data").iterdir()))


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal Qwen3 as sentence-transformers saves an embedder: the last token, a projection, length 1."""
    base = tmp_path_factory.mktemp("base")
    save_with_tokenizer(base, "qwen3", "causal", {"max_position_embeddings": 512})
    plain = without_template(base, tmp_path_factory.mktemp("embedder") / "model")
    chain = [("Pooling", new_pooling("lasttoken")), ("Dense", dense(32, 16, "activation.Tanh")), ("Normalize", {})]
    prompts = {"prompts": {"query": QUERY_PROMPT, "document": ""}, "default_prompt_name": None}
    return add_modules(plain, chain, config_sentence_transformers=prompts)


def expected_vectors(model: Path, texts: list[str], *, dimensions: int | None) -> np.ndarray[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModel.from_pretrained(model, dtype=torch.float32)
    weights = load_file(model / "2_Dense" / "model.safetensors")
    found = []
    for text in texts:
        with torch.no_grad():
            state = network(**tokenizer(text, return_tensors="pt", split_special_tokens=True)).last_hidden_state[0, -1]
        vector = torch.tanh(weights["linear.weight"] @ state + weights["linear.bias"])[:dimensions]
        found.append((vector / vector.norm()).numpy())
    return np.stack(found)


@pytest.mark.parametrize("dimensions", [pytest.param(None, marks=pytest.mark.faults), 5])
def test_vectors_are_those_of_the_checkpoints_files(embedder: Path, tmp_path: Path, dimensions: int | None) -> None:
    more = "" if dimensions is None else f", dimensions: {dimensions}"
    spec = spec_of(tmp_path, embedder, f"{{kind: embed, text: '{{{{ body }}}}', prompt_name: query{more}}}")
    assert drive(spec.job).exit_status == 0
    table = results(tmp_path)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), dimensions or 16)
    assert table.column("question").to_pylist() == list(QUESTIONS)
    found = np.array(table.column("embedding").to_pylist(), np.float32)
    expected = expected_vectors(embedder, [QUERY_PROMPT + body for body in BODIES], dimensions=dimensions)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    [letter] = rows_in(tmp_path / "out", "errors")
    assert (letter["row"], letter["kind"]) == (5, "too_long")
    assert gather(RunOutput.open(spec.job.output, input_options={})).tasks[0].labels == []


QWEN3_RERANKER = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n'
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def test_a_causal_reranker_says_how_sure_it_is_of_yes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    tiny_tokenizers.qwen_reranker(model)
    save_checkpoint(model, "qwen3", "causal", {"vocab_size": 512, "max_position_embeddings": 512})
    instruction = "Find what answers"
    spec = spec_of(
        tmp_path,
        model,
        f"{{kind: rerank, query: '{{{{ question }}}}', document: '{{{{ body }}}}', instruction: {instruction}}}",
    )
    assert drive(spec.job).exit_status == 0
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    answers = tokenizer.convert_tokens_to_ids(["no", "yes"])
    for query, document, score in zip(QUESTIONS, BODIES, results(tmp_path).column("score").to_pylist(), strict=True):
        if "<|im_end|>" in document:  # a special token that a text spells stays text
            continue
        prompt = QWEN3_RERANKER.format(instruction=instruction, query=query, document=document)
        with torch.no_grad():
            logits = network(**tokenizer(prompt, return_tensors="pt", add_special_tokens=False)).logits[0, -1, answers]
        assert score == pytest.approx(logits.softmax(dim=-1)[1].item(), abs=1e-5)


def test_a_cross_encoder_reads_both_texts(tmp_path: Path) -> None:
    """Without a run, as one asks an engine the same whatever the task."""
    model = tmp_path / "model"
    model.mkdir()
    save_with_tokenizer(model, "llama", "sequence-classification", {"num_labels": 1, "max_position_embeddings": 512})
    spec = spec_of(tmp_path, model, "{kind: rerank, query: '{{ question }}', document: '{{ body }}'}")
    answered = answered_here(spec)
    assert [failure.kind for failure in answered.failures] == ["too_long"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
    for query, document, row in zip(QUESTIONS, BODIES, answered.rows, strict=True):
        with torch.no_grad():
            inputs = tokenizer(query, document, return_tensors="pt", split_special_tokens=True)
            logit = network(**inputs).logits[0, 0]
        assert row["score"] == pytest.approx(torch.sigmoid(logit).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            "{kind: embed, text: '{{ body }}', dimensions: 17}",
            "task.dimensions: was 17; this checkpoint's vectors have",
        ),
        ("{kind: embed, text: '{{ body }}', prompt_name: nobody}", "task.prompt_name: this checkpoint has no prompt"),
        ("{kind: embed, text: '{{ body }}', prompt: a, instruction: b}", "task.instruction: stands beside prompt"),
        ("{kind: embed, text: '{{ body }}', pooling: max}", "task.pooling: was 'max'; it must be auto"),
        ("{kind: rerank, query: '{{ question }}', document: '{{ body }}'}", "model.path: "),
        ("{kind: rerank, query: '{{ question }}'}", "task.document: this key is required"),
    ],
)
def test_what_a_checkpoint_does_not_do_is_said_before_a_run(
    embedder: Path, tmp_path: Path, task: str, said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        check_before_run(spec_of(tmp_path, embedder, task))
    assert said in str(caught.value)


def test_a_checkpoint_that_pools_otherwise_is_another_run(embedder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(embedder, tmp_path / "model"))
    job = spec_of(tmp_path, model, "{kind: embed, text: '{{ body }}'}").job
    before = fingerprint_of(job, list_sources(job.input))
    (model / "1_Pooling" / "config.json").write_text(json.dumps(new_pooling("mean")))
    changed = differences(before, fingerprint_of(job, list_sources(job.input)))
    assert len(changed) == 1
    assert "1_Pooling/config.json" in changed[0]
