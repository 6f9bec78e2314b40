"""The fuzz of a checkpoint's files, with thousands of examples (make faults)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.models import odd_checkpoints as odd
from tests.helpers.tiny_families import FAMILIES
from tests.models.config import test_odd_checkpoints as fuzz

CheckpointMaker = Callable[..., Path]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NUM_EXAMPLES = 2000


@pytest.fixture
def folder(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    return odd.copied(tiny_checkpoint(), tmp_path / "copy")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_odd_configs(tiny_checkpoint: CheckpointMaker, tmp_path: Path, family: str) -> None:
    head = "causal" if FAMILIES[family].is_hybrid else "sequence-classification"
    fuzz.spoil_configs(odd.copied(tiny_checkpoint(head, family=family), tmp_path / "copy"), NUM_EXAMPLES)


def test_odd_weights(folder: Path) -> None:
    fuzz.spoil_weights(folder, NUM_EXAMPLES)


def test_odd_indexes(folder: Path) -> None:
    fuzz.spoil_index(folder, NUM_EXAMPLES)


def test_odd_tokenizers(folder: Path) -> None:
    fuzz.spoil_tokenizer(folder, NUM_EXAMPLES)
