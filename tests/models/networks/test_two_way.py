"""Networks whose attention looks both ways, against transformers with `is_causal: false`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from models import Engine, Scorer
from models.config.model_config import ModelConfig
from models.errors import CheckpointError, ConfigError, RequestError
from tests.helpers.tiny_families import FAMILIES, LONGROPE
from tests.models.networks.test_parity import ORACLES, logits_of, ragged

CheckpointMaker = Callable[..., Path]
KEYS = ({"is_causal": False}, {"use_bidirectional_attention": True})
SHAPES: list[tuple[str, dict[str, Any]]] = [
    *((name, {} if family.is_sharp else {"initializer_range": 0.1}) for name, family in FAMILIES.items()),
    ("qwen3", {"num_key_value_heads": 1, "head_dim": 80}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    ("smollm3", {"use_sliding_window": True, "sliding_window": 6, "no_rope_layer_interval": 2}),
    ("phi3", {"sliding_window": 10}),
    ("mistral", {"sliding_window": 10}),
    ("phi3", {"original_max_position_embeddings": 33, "rope_parameters": LONGROPE}),
]
HEADS = ("sequence-classification", "token-classification")
CASES = [(*shape, head) for shape in SHAPES for head in HEADS if head not in FAMILIES[shape[0]].missing]


def with_keys(folder: Path, target: Path, keys: dict[str, Any]) -> Path:
    """A copy of a checkpoint whose config.json has these keys."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text()) | keys
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(("family", "fields", "head"), CASES)
def test_logits_are_those_of_transformers(
    family_checkpoint: CheckpointMaker, tmp_path: Path, family: str, fields: dict[str, Any], head: str
) -> None:
    """In one pack, in packs of a few sequences, and alone; under the key that transformers reads and under the other."""
    folder = family_checkpoint(family, head, **{"num_labels": 5, "pad_token_id": 0} | fields)
    theirs, ours = (with_keys(folder, tmp_path / str(number), keys) for number, keys in enumerate(KEYS))
    oracle = ORACLES[head].from_pretrained(theirs, dtype=torch.float32)
    expected = [logits_of(oracle, head, ids) for ids in ragged()]
    for path in (theirs, ours):
        for budget in (8192, 100, 1):
            found = Scorer.from_pretrained(path, max_num_batched_tokens=budget).score(ragged())
            for logits, reference in zip(found, expected, strict=True):
                torch.testing.assert_close(logits, reference, atol=1e-4, rtol=0)
    causal = Scorer.from_pretrained(folder).score(ragged())
    assert (
        max(float((logits - reference).abs().max()) for logits, reference in zip(causal, expected, strict=True)) > 0.01
    )


@pytest.mark.parametrize(("family", "fields"), SHAPES)
def test_vectors_are_those_of_transformers_whatever_head_the_file_has(
    family_checkpoint: CheckpointMaker, tmp_path: Path, family: str, fields: dict[str, Any]
) -> None:
    folder = with_keys(family_checkpoint(family, "causal", **fields), tmp_path / "model", {"is_causal": False})
    scorer = Scorer.from_pretrained(folder)
    assert scorer.head == "embedding"
    oracle: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    for ids, vector in zip(ragged(), scorer.embed(ragged(), "mean", normalize=False), strict=True):
        with torch.no_grad():
            hidden = oracle(torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(vector, hidden.mean(dim=0), atol=1e-4, rtol=0)


def test_a_long_sequence_is_computed_in_tiles(family_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    fields = {"max_position_embeddings": 2048, "use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}
    folder = family_checkpoint("qwen3", "token-classification", num_labels=5, **fields)
    folder = with_keys(folder, tmp_path / "model", {"is_causal": False})
    sequences = [
        torch.randint(3, 96, (length,), generator=torch.Generator().manual_seed(length)).tolist()
        for length in (1500, 1200)
    ]
    oracle = ORACLES["token-classification"].from_pretrained(folder, dtype=torch.float32)
    for ids, logits in zip(sequences, Scorer.from_pretrained(folder).score(sequences), strict=True):
        torch.testing.assert_close(logits, logits_of(oracle, "token-classification", ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("keys", KEYS)
def test_such_a_network_makes_no_text(family_checkpoint: CheckpointMaker, tmp_path: Path, keys: dict[str, Any]) -> None:
    folder = with_keys(family_checkpoint("qwen3", "causal"), tmp_path / "model", keys)
    with pytest.raises(CheckpointError, match=r"makes no text: its attention looks both ways \(is_causal: false or"):
        Engine.from_pretrained(folder)
    with pytest.raises(ConfigError, match="head was 'causal', which this checkpoint cannot have: its attention looks"):
        Scorer.from_pretrained(folder, head="causal")
    with pytest.raises(RequestError, match="this is none: its attention looks both ways"):
        Scorer.from_pretrained(folder).score_labels([[5]], [[6]])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"is_causal": True, "use_bidirectional_attention": True},
            "is_causal was True; it must be false or absent beside",
        ),
        (
            {"use_bidirectional_attention": "vision"},
            "use_bidirectional_attention was 'vision'; it must be true or false",
        ),
        ({"is_causal": 0}, "is_causal was 0; it must be true or false"),
    ],
)
def test_keys_that_say_nothing_clear_are_refused(
    family_checkpoint: CheckpointMaker, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        ModelConfig.from_pretrained(with_keys(family_checkpoint("qwen3", "causal"), tmp_path / "model", keys))


def test_a_network_that_says_it_is_causal_is(family_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    keys = {"is_causal": True, "use_bidirectional_attention": None}
    config = ModelConfig.from_pretrained(with_keys(family_checkpoint("qwen3", "causal"), tmp_path / "model", keys))
    assert (config.is_causal, config.head) == (True, "causal")
