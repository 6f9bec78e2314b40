"""From a checkpoint folder to a model that runs: what is chosen when nobody says, and what is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Scorer
from models.config.families import FAMILIES
from models.config.model_config import ModelConfig
from models.errors import CheckpointError, ConfigError
from models.layers.kernels import attention_kernels, plain, products
from models.layers.kernels.compiled import native_kernels
from models.loading.choices import choose_backend, choose_device
from models.loading.load import load_model, load_tokenizer, require_causal
from models.networks.decoder import BuildOptions
from models.networks.families import build_decoder

CheckpointMaker = Callable[..., Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_whose_configuration_is_read_is_built(family: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    config = ModelConfig.from_pretrained(tmp_path)
    options = BuildOptions(backend=choose_backend(CPU, torch.float32, config), max_model_len=1)
    network = build_decoder(config, options)
    assert type(network).__module__ == f"models.networks.{family}"


@pytest.mark.parametrize(
    ("device", "dtype", "right", "name"),
    [
        ("cpu", torch.float32, {}, "native"),
        ("cpu", torch.bfloat16, {}, "native"),
        ("cuda", torch.bfloat16, {"paged_attention", "gathered_attention"}, "flash-attn"),
        ("cuda", torch.float16, {"gathered_attention"}, "torch-varlen"),
        ("cuda", torch.float16, {}, "cpu"),
        # the flash kernels take half precision only; torch's operators run anywhere
        ("cuda", torch.float32, {"paged_attention", "gathered_attention"}, "cpu"),
    ],
)
def test_the_attention_backend_takes_the_device_and_the_dtype(
    device: str, dtype: torch.dtype, right: set[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    config = ModelConfig.from_pretrained(tmp_path)
    if name == "native":
        name = "cpu" if native_kernels(dtype) is None else "native"
    for kernel in ("paged_attention", "gathered_attention"):
        found = plain.varlen_attention if kernel in right else None
        monkeypatch.setattr(attention_kernels, kernel, lambda dtype, device_type, found=found: found)
    monkeypatch.setattr(attention_kernels, "fused_attention", lambda dtype, device_type: plain.attention)
    assert choose_backend(torch.device(device), dtype, config).name == name


def test_a_checkpoint_gives_its_own_head_dtype_and_length(qwen3_checkpoint: CheckpointMaker) -> None:
    loaded = load_model(qwen3_checkpoint("question-answering", dtype=torch.bfloat16), device="cpu")
    assert (loaded.head, loaded.dtype, loaded.device.type) == (
        "question-answering",
        products.computed_dtype(torch.bfloat16),
        "cpu",
    )
    assert loaded.max_model_len == 128
    assert loaded.backend.name in ("native", "cpu")
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16"])
def test_a_cpu_without_half_precision_computes_in_float32(
    qwen3_checkpoint: CheckpointMaker, dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = qwen3_checkpoint("sequence-classification", dtype=torch.bfloat16)
    exact = Scorer.from_pretrained(folder, dtype="float32", device="cpu").score([[3, 4, 5]])[0]
    monkeypatch.setattr(products, "_multiplies_bfloat16", lambda: False)
    caplog.set_level(logging.INFO)
    loaded = load_model(folder, dtype=dtype, device="cpu")
    assert loaded.dtype == torch.float32
    assert torch.equal(Scorer(loaded).score([[3, 4, 5]])[0], exact)
    assert "no instructions for" in caplog.text


@pytest.mark.parametrize(
    ("found", "is_native"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"architecture": "aarch64", "neon": True}, False),
    ],
)
def test_bfloat16_is_computed_where_there_are_instructions(
    found: dict[str, object], is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    products._multiplies_bfloat16.cache_clear()
    assert products.computed_dtype(torch.bfloat16) == (torch.bfloat16 if is_native else torch.float32)
    products._multiplies_bfloat16.cache_clear()


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
