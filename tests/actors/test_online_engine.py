"""A model in this process, as it is loaded for online requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actors.online_engine import LocalModel
from actors.work import EngineSettings
from tests.actors.serving import load


@pytest.fixture
def threads() -> Iterator[int]:
    """How many threads a product has here; a model that is loaded sets them for the whole process."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("head", ["causal", "classifier"])
def test_a_product_has_the_threads_of_the_settings(
    threads: int, causal_path: Path, classifier_path: Path, head: str
) -> None:
    path = causal_path if head == "causal" else classifier_path
    model = LocalModel.load(EngineSettings(path=str(path), dtype="float32", num_threads=threads + 1))
    try:
        assert torch.get_num_threads() == threads + 1
    finally:
        model.close()


def test_a_model_tells_whether_it_makes_text(causal: LocalModel, classifier_path: Path) -> None:
    classifier = load(classifier_path)
    assert (causal.is_generative, classifier.is_generative) == (True, False)
    classifier.close()
