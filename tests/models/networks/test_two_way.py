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
from models.tasks.answers import MAX_ANSWER_TOKENS, find_answer
from tests.helpers.matrix import first_of_each
from tests.helpers.tiny_families import DENSE, FAMILIES, LONGROPE
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
HEADS = ("sequence-classification", "token-classification", "question-answering")
QUESTION = 3
CASES = [(*shape, head) for shape in SHAPES for head in HEADS if head not in FAMILIES[shape[0]].missing]


def with_keys(folder: Path, target: Path, keys: dict[str, Any]) -> Path:
    """A copy of a checkpoint whose config.json has these keys."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text()) | keys
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(("family", "fields", "head"), first_of_each(CASES, kind=lambda case: (case[0], str(case[1]))))
def test_logits_are_those_of_transformers(
    family_checkpoint: CheckpointMaker, tmp_path: Path, family: str, fields: dict[str, Any], head: str
) -> None:
    """In one pack, in packs of a few sequences, and alone; under the key that transformers reads and under the other."""
    labels = {} if head == "question-answering" else {"num_labels": 5}  # a start and an end are all that one has
    folder = family_checkpoint(family, head, **{"pad_token_id": 0} | labels | fields)
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


@pytest.mark.parametrize("family", [name for name in DENSE if "question-answering" not in FAMILIES[name].missing])
def test_answers_are_the_likeliest_pairs_of_transformers_logits(
    family_checkpoint: CheckpointMaker, tmp_path: Path, family: str
) -> None:
    """The question is the first three tokens; a token of the text after it is one letter."""
    causal = family_checkpoint(family, "question-answering", pad_token_id=0, initializer_range=0.5)
    folder = with_keys(causal, tmp_path / "model", {"is_causal": False})
    oracle = ORACLES["question-answering"].from_pretrained(folder, dtype=torch.float32)
    texts = [ids for ids in ragged() if len(ids) > 4]
    answers = found_answers(folder, texts)
    for ids, answer in zip(texts, answers, strict=True):
        assert answer == likeliest_pair(logits_of(oracle, "question-answering", ids))
    assert answers.count(None) < len(texts)
    assert answers != found_answers(causal, texts)


def found_answers(folder: Path, texts: list[list[int]]) -> list[tuple[int, int] | None]:
    """The first letter of each answer, and the one after its last; None where there is none."""
    found = []
    for ids, logits in zip(texts, Scorer.from_pretrained(folder).score(texts), strict=True):
        letters = len(ids) - QUESTION
        places = torch.arange(letters)
        offsets = torch.cat([torch.full((QUESTION, 2), -1), torch.stack([places, places + 1], dim=-1)])  # [T, 2]
        answer = find_answer([(logits.numpy(), offsets.to(torch.int32).numpy())], "x" * letters)
        found.append(None if answer is None else (answer.start, answer.end))
    return found


def likeliest_pair(logits: torch.Tensor) -> tuple[int, int] | None:
    """As SQuAD 2 is evaluated: every pair of letters is tried, and none at all is the pair of the first token."""
    text = logits[QUESTION:].tolist()
    sums = {
        (start, end + 1): text[start][0] + text[end][1]
        for start in range(len(text))
        for end in range(start, min(start + MAX_ANSWER_TOKENS, len(text)))
    }
    best, second = sorted(sums, key=lambda pair: sums[pair], reverse=True)[:2]
    nothing = float(logits[0].sum())
    assert min(sums[best] - sums[second], abs(sums[best] - nothing)) > 1e-3  # no near-tie, which may fall either way
    return None if nothing > sums[best] else best


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
