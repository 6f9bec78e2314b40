"""Tokenizers of Llama and Mistral: the file as it is published, also where transformers makes its class anew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_tokenizers import change_config
from tests.models.text.test_tokenizer import TEXTS

SPACED = [" a", "  a b ", " ", "a</s> b", "</s>  b<s> c", "\n a"]


@pytest.fixture
def folder(tokenizer_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint converted from sentencepiece, whose files name the class that Llama 1 and 2 and Mistral name."""
    copy = Path(shutil.copytree(tokenizer_folder("sentencepiece"), tmp_path, dirs_exist_ok=True))
    return change_config(copy, tokenizer_class="LlamaTokenizer", legacy=True)


def auto_tokenizer(folder: Path, model_type: str) -> Any:
    from transformers import AutoTokenizer

    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("model_type", ["mistral", "phi3"])
def test_a_llama_tokenizer_is_what_its_file_says(folder: Path, model_type: str) -> None:
    ours, theirs = Tokenizer.from_pretrained(folder), auto_tokenizer(folder, model_type)
    for text in TEXTS + SPACED:
        assert ours.encode(text) == theirs(text).input_ids
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text).input_ids, skip_special_tokens=True)


def test_the_first_space_of_a_llamas_text_is_kept(folder: Path) -> None:
    """transformers 5.23 leaves the file's normalizer out where `model_type` is llama, and so takes " a" for "a". sentencepiece,
    with which such models were trained, puts its space before that of the text."""
    ours, theirs = Tokenizer.from_pretrained(folder), auto_tokenizer(folder, "llama")
    known = pieces(folder)
    assert "".join(known[token] for token in ours.encode(" a b", add_special_tokens=False)) == "▁▁a▁b"
    assert ours.encode(" a") != ours.encode("a")
    assert theirs(" a").input_ids == theirs("a").input_ids == ours.encode("a")
    same = [text for text in TEXTS + SPACED if ours.encode(text) == theirs(text).input_ids]
    assert {text for text in TEXTS if not text.startswith(" ") and "> " not in text and ">  " not in text} <= set(same)


def pieces(folder: Path) -> dict[int, str]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return {number: piece for piece, number in vocabulary.items()}
