"""From a checkpoint folder to a model that runs: what is chosen when nobody says, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import CheckpointError, ConfigError
from models.layers import attention_cpu
from models.registry import choose_backend, choose_device, load_model, load_tokenizer, require_causal

CheckpointMaker = Callable[..., Path]


@pytest.mark.parametrize(
    ("device", "dtype", "names"),
    [
        ("cpu", torch.float32, {"cpu"}),
        ("cpu", torch.bfloat16, {"cpu"}),
        ("cuda", torch.bfloat16, {"flash-attn", "torch-varlen"}),
        ("cuda", torch.float16, {"flash-attn", "torch-varlen"}),
        ("cuda", torch.float32, {"cpu"}),  # the flash kernels take half precision only; torch's operators run anywhere
    ],
)
def test_the_attention_backend_takes_the_device_and_the_dtype(device: str, dtype: torch.dtype, names: set[str]) -> None:
    assert choose_backend(torch.device(device), dtype).name in names


def test_a_checkpoint_gives_its_own_head_dtype_and_length(qwen3_checkpoint: CheckpointMaker) -> None:
    loaded = load_model(qwen3_checkpoint("question-answering", dtype=torch.bfloat16), device="cpu")
    assert (loaded.head, loaded.dtype, loaded.device.type) == ("question-answering", torch.bfloat16, "cpu")
    assert loaded.max_model_len == 128
    assert loaded.backend is attention_cpu.BACKEND
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype was 'int8'; it must be 'auto' or one of bfloat16, float16, float32"),
        ({"head": "regression"}, "head was 'regression'; it must be 'auto' or one of causal"),
        ({"max_model_len": 0}, "max_model_len was 0; it must be from 1 to"),
        ({"max_model_len": 129}, "max_model_len was 129; it must be from 1 to"),
        ({"device": "potato"}, "device was 'potato'"),
    ],
)
def test_an_argument_that_cannot_be_honoured_is_refused(
    qwen3_checkpoint: CheckpointMaker, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(qwen3_checkpoint("causal"), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_and_not_replaced() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="device was 'cuda', but torch sees no GPU here"):
        choose_device("cuda")


def test_a_head_that_makes_no_text_is_told_apart(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("token-classification", num_labels=3)
    with pytest.raises(CheckpointError, match="token-classification head, which makes no text"):
        require_causal(load_model(folder), folder)


def test_a_folder_without_a_tokenizer_has_none(qwen3_checkpoint: CheckpointMaker) -> None:
    assert load_tokenizer(qwen3_checkpoint("causal")) is None
