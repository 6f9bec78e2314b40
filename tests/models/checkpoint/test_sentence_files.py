"""The files of sentence-transformers come with a checkpoint, wherever it is."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects

from models import Scorer
from models.checkpoint import hub
from models.checkpoint.files import is_description, sentence_files
from models.checkpoint.place import find_checkpoint
from tests.helpers.models.sentence_checkpoints import add_modules, dense, new_pooling
from tests.helpers.tiny_checkpoints import save_with_tokenizer

BROUGHT = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Normalize/config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
]
LEFT = [
    "2_Dense/pytorch_model.bin",
    "1_Pooling/README.md",
    "1_Pooling/deep/config.json",
    "1_Other/config.json",
    "x_Dense/model.safetensors",
    "Dense/config.json",
    "checkpoint-5/modules.json",
    "onnx/model.safetensors",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_with_tokenizer(folder, "qwen3", "causal", {})
    chain = [("Pooling", new_pooling("mean")), ("Dense", dense(32, 8, "activation.Tanh")), ("Normalize", {})]
    about = {"prompts": {"query": "query: "}}
    return add_modules(folder, chain, config_sentence_transformers=about, sentence_bert_config={"max_seq_length": 64})


@pytest.fixture
def url(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same at a URL, among files that are not read, with a home of the test's own to be brought to."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    for file in folder.rglob("*"):
        if file.is_file():
            memory.pipe_file(f"{root}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    for name in LEFT:
        memory.pipe_file(f"{root}/{name}", b"other")
    yield f"memory:/{root}"
    memory.rm(root, recursive=True)


def test_their_names_are_known_in_a_folder_and_anywhere_else(folder: Path) -> None:
    for name in LEFT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("other")
    assert sentence_files(folder) == BROUGHT
    assert all(map(is_description, BROUGHT))
    assert not any(map(is_description, LEFT))


def test_they_come_with_a_checkpoint_at_a_url_and_make_the_same_vectors(folder: Path, url: str) -> None:
    description = find_checkpoint(url, parts="description")
    assert sentence_files(description.folder) == BROUGHT
    assert not any((description.folder / name).exists() for name in LEFT)
    assert set(description.weights) == {"model.safetensors"}
    assert torch.equal(Scorer.from_pretrained(url).embed([[3, 4]]), Scorer.from_pretrained(folder).embed([[3, 4]]))


def test_another_projection_is_another_version(folder: Path, url: str) -> None:
    before = find_checkpoint(url, parts="description")
    file = url.removeprefix("memory:/") + "/2_Dense/model.safetensors"
    fsspec.filesystem("memory").pipe_file(file, (folder / "2_Dense/model.safetensors").read_bytes() + b" ")
    assert find_checkpoint(url, parts="description").version != before.version


def test_they_are_asked_of_the_hub() -> None:
    found = list(filter_repo_objects([*BROUGHT, *LEFT], allow_patterns=list(hub._DESCRIPTION)))
    assert found[: len(BROUGHT)] == BROUGHT
    assert not set(found) & {
        "2_Dense/pytorch_model.bin",
        "1_Pooling/README.md",
        "1_Other/config.json",
        "onnx/model.safetensors",
    }
