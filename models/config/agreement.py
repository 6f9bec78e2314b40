"""Whether a config.json is that of the weights beside it, by the names and shapes in their headers.

Asked before a network is built: building one takes time and memory by what config.json says, and the files say how much of that is
there. Every single tensor is compared once the network has been built, in `models.weights.weights`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.checkpoint.stored_tensors import EMBEDDING, LM_HEAD, StoredTensor
from models.config.model_config import ModelConfig
from models.errors import CheckpointError

_LAYER = re.compile(r"layers\.(\d{1,9})\.", re.ASCII)
_SCORE = "score.weight"


def check_agreement(config: ModelConfig, tensors: Mapping[str, StoredTensor], folder: Path) -> None:
    """Compares the number of layers, the vocabulary, the hidden size and the labels; `tensors` are by their canonical names.

    Raises:
        CheckpointError: they differ; the text has both.
    """
    problems = [*_layers(config, tensors), *_vocabulary(config, tensors), *_labels(config, tensors)]
    if problems:
        raise CheckpointError(
            f"{folder} does not fit its config.json. {'. '.join(problems)}. Give the checkpoint of this model, whole"
        )


def _layers(config: ModelConfig, tensors: Iterable[str]) -> Iterable[str]:
    stored = {int(match[1]) for name in tensors if (match := _LAYER.match(name))}
    if stored != set(range(config.num_hidden_layers)):
        last = f", the last of them layers.{max(stored)}" if stored else ""
        yield f"num_hidden_layers is {config.num_hidden_layers:,}, and its files hold {len(stored):,}{last}"


def _vocabulary(config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> Iterable[str]:
    for name in (EMBEDDING, LM_HEAD):
        if _is_plain(tensors.get(name)) and tensors[name].shape != (config.vocab_size, config.hidden_size):
            yield (
                f"vocab_size and hidden_size are {config.vocab_size:,} and {config.hidden_size:,}, and {tensors[name].name} is "
                f"{list(tensors[name].shape)}"
            )


def _labels(config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> Iterable[str]:
    """A head of classes has a row for each of them."""
    has_classes = config.head in ("sequence-classification", "token-classification")
    if (
        has_classes
        and _is_plain(tensors.get(_SCORE))
        and tensors[_SCORE].shape != (config.num_labels, config.hidden_size)
    ):
        yield (
            f"num_labels (or id2label) and hidden_size are {config.num_labels:,} and {config.hidden_size:,}, and "
            f"{tensors[_SCORE].name} is {list(tensors[_SCORE].shape)}"
        )


def _is_plain(tensor: StoredTensor | None) -> bool:
    """Whether a tensor is there and holds no integers: one that is quantized has another shape."""
    return tensor is not None and not tensor.dtype.startswith(("I", "U"))
