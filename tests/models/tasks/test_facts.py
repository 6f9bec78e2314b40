"""What is said of a checkpoint is what transformers reads in its files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from models.config.model_config import ModelConfig
from models.config.types import Head
from models.tasks.facts import ModelFacts
from models.text.tokenizer import Tokenizer


def facts_of(folder: Path, max_model_len: int | None = None) -> ModelFacts:
    config = ModelConfig.from_pretrained(folder)
    return ModelFacts.from_config(config, Tokenizer.from_pretrained(folder), max_model_len)


@pytest.mark.parametrize("head", ["sequence-classification", "token-classification"])
def test_classes_and_limits_are_those_of_the_configuration(tiny_checkpoint: Callable[..., Path], head: Head) -> None:
    folder = tiny_checkpoint(head)
    expected, facts = AutoConfig.from_pretrained(folder), facts_of(folder)
    assert facts.class_names == tuple(name for _, name in sorted(expected.id2label.items()))
    assert (facts.head, facts.vocab_size) == (head, expected.vocab_size)
    assert facts.max_model_len == expected.max_position_embeddings
    assert facts_of(folder, 17).max_model_len == 17


def test_without_end_tokens_in_the_configuration_the_tokenizers_ends_a_text(
    tiny_checkpoint: Callable[..., Path],
) -> None:
    named, unnamed = tiny_checkpoint(eos_token_id=[7, 5]), tiny_checkpoint(eos_token_id=None)
    assert sorted(facts_of(named).eos_token_ids) == [5, 7]
    assert facts_of(unnamed).eos_token_ids == (AutoTokenizer.from_pretrained(unnamed).eos_token_id,)
