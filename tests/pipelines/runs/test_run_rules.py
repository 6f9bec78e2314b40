"""Rules over the next token in a run, from the spec's keys to the rows: what transformers writes
with its own processors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.spec.job import load_spec
from tests.helpers.models.near_ties import assert_greedy
from tests.helpers.models.tiny_engine import SHARP
from tests.helpers.pipelines.running import drive, rows_in, write_corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

STOP, BAD = 65, ("a", "it is")
FOUR_HEADS = {"num_attention_heads": 4}
SAMPLING: dict[str, Any] = {
    "max_tokens": 12, "min_tokens": 7, "stop_token_ids": [STOP], "ignore_eos": True, "logprobs": 0,
    "logit_bias": {str(STOP): 40, "70": 2.5}, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words": list(BAD),
    "allowed_token_ids": list(range(20, 500)),
}  # fmt: skip


@pytest.mark.parametrize("num_shards", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_rows_are_what_transformers_writes(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, num_shards: int
) -> None:
    model = tiny_checkpoint(max_position_embeddings=256, **FOUR_HEADS, **SHARP)
    corpus = write_corpus(tmp_path / "rows.jsonl", 20)
    spec = {
        "name": "rules",
        "model": {"path": str(model), "dtype": "float32"},
        "task": {"kind": "generate", "prompt": "{{ body }}", "sampling": SAMPLING},
        "input": {"paths": [str(corpus)]},
        "output": {"path": str(tmp_path / "out"), "format": "jsonl"},
        "engine": {"num_cpus": 1, "max_num_seqs": 8, "tensor_parallel_size": num_shards},
        "unit_rows": 8,
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    assert drive(load_spec(tmp_path / "spec.yaml").job).exit_status == 0
    rows = rows_in(tmp_path / "out")
    assert len(rows) == 20

    oracle: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    forms = [form for word in BAD for form in (word, f" {word}")]
    for row in rows:
        tokens = [token["token_id"] for token in row["logprobs"]]
        assert tokens[-1] == STOP
        assert len(tokens) == 8
        assert row["text"] == tokenizer.decode(tokens[:-1])
        assert_greedy(
            oracle, tokenizer(row["body"])["input_ids"], tokens,
            max_new_tokens=12, min_new_tokens=7, eos_token_id=STOP, sequence_bias={(STOP,): 40.0, (70,): 2.5},
            repetition_penalty=1.3, no_repeat_ngram_size=2,
            bad_words_ids=[tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms],
            suppress_tokens=[*range(20), *range(500, 512)],
        )  # fmt: skip
