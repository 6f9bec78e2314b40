"""Checkpoints in other layouts, and adapters: refused in words that name what was found, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import Scorer
from models.config.model_config import ModelConfig
from models.errors import CheckpointError, ConfigError, ModelError
from models.weights.weights import Checkpoint

CheckpointMaker = Callable[..., Path]


@pytest.fixture
def folder(qwen3_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    """A checkpoint that loads, for tests to change."""
    return shutil.copytree(
        qwen3_checkpoint("sequence-classification", num_labels=3, pad_token_id=0), tmp_path / "model"
    )


def put(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def change_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "names",
    [
        ("adapter_config.json", "adapter_model.safetensors"),
        ("adapter_config.json", "adapter_model.bin"),
        ("adapter_model.safetensors",),
        ("adapter_config.json", "adapters.safetensors"),
    ],
)
def test_an_adapter_beside_a_model_is_refused_by_its_files(folder: Path, names: tuple[str, ...]) -> None:
    put(folder, names)
    with pytest.raises(CheckpointError, match="holds an adapter") as caught:
        Scorer.from_pretrained(folder)
    assert f"({', '.join(names)}) beside a model's weights" in str(caught.value)
    assert "merge_and_unload" in str(caught.value)
    assert "move these files away" in str(caught.value)
    for name in names:
        (folder / name).unlink()
    assert len(Scorer.from_pretrained(folder).score([[5, 6]])) == 1


OTHER_FILES = [
    (("model-q4_k_m.gguf",), "GGUF files (model-q4_k_m.gguf), which are quantized for llama.cpp: give the safetensors"),
    (("weights.00.npz", "weights.01.npz"), "weights of MLX (weights.00.npz, weights.01.npz)"),
    (("onnx/model.onnx", "onnx/model.onnx_data"), "an ONNX export (onnx)"),
    (("model.onnx",), "an ONNX export (model.onnx)"),
    (("openvino_model.xml", "openvino_model.bin"), "an OpenVINO export (openvino_model.bin, openvino_model.xml)"),
    (("rank0.engine",), "a TensorRT engine (rank0.engine)"),
    (("model.nemo",), "an archive of NVIDIA NeMo (model.nemo)"),
    (("tf_model.h5",), "weights for TensorFlow or Flax (tf_model.h5)"),
    (("flax_model.msgpack",), "weights for TensorFlow or Flax (flax_model.msgpack)"),
    (
        ("consolidated.safetensors", "params.json"),
        "weights in the layout of their authors' own code (consolidated.safetensors)",
    ),
    (("consolidated.00.pth", "params.json"), "weights in the layout of their authors' own code (consolidated.00.pth)"),
    (("__0_0.distcp",), "a distributed checkpoint of a training run (__0_0.distcp)"),
    (
        ("pytorch_model.bin",),
        "only pickled weights (pytorch_model.bin), which are never opened, since a pickle can run code",
    ),
    (("model.pth",), "only pickled weights (model.pth)"),
    (
        ("adapter_config.json", "adapter_model.safetensors"),
        "an adapter (adapter_config.json, adapter_model.safetensors), which",
    ),
]


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize(("names", "said"), OTHER_FILES)
def test_other_files_are_named_with_the_way_out(
    folder: Path, names: tuple[str, ...], said: str, has_config: bool
) -> None:
    (folder / "model.safetensors").unlink()
    put(folder, names)
    if not has_config:
        (folder / "config.json").unlink()
    with pytest.raises(ModelError) as caught:
        Scorer.from_pretrained(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["model.gguf", "model.onnx", "pytorch_model.bin", "model.safetensors"])
def test_a_file_in_place_of_a_folder_is_told_as_one(tmp_path: Path, name: str) -> None:
    put(tmp_path, (name,))
    for read in (ModelConfig.from_pretrained, Checkpoint.open):
        with pytest.raises(ModelError, match="is a file and is not a folder: "):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
            "weights in the layout of GPTQ",
        ),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm"}},
            "weights in the layout of AWQ",
        ),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "in the layout of FP8"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors (llm-compressor)"),
        ({"quantization_config": {"quant_method": "intel/auto-round"}}, "in the layout of AutoRound"),
        ({"quantization_config": {"quant_method": "newest"}}, "quant_method was 'newest'; it must be bitsandbytes"),
        ({"quantization_config": {"group_size": 64, "bits": 4, "mode": "affine"}}, "in the layout of MLX"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "the settings of weights that MLX quantized"),
        (
            {"compression_config": {"format": "pack-quantized"}},
            "the settings of weights that compressed-tensors quantized",
        ),
    ],
)
def test_other_quantizations_are_named(folder: Path, fields: dict[str, Any], said: str) -> None:
    change_config(folder, **fields)
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_pretrained(folder)
    assert said in str(caught.value)
    assert "unquantized" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "whose"),
    [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ"), ("hf_quant_config.json", "NVIDIA ModelOpt")],
)
def test_a_quantizers_own_file_is_named_where_the_config_says_nothing(folder: Path, name: str, whose: str) -> None:
    put(folder, (name,))
    with pytest.raises(CheckpointError, match=rf"quantized with {whose} \({name}\).*give the unquantized checkpoint"):
        Checkpoint.open(folder)


PROJECTION = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({f"{PROJECTION}.qweight": torch.zeros(4, 4, dtype=torch.int32)}, "qweight is packed by GPTQ, AWQ"),
        ({f"{PROJECTION}.weight_packed": torch.zeros(4, 4, dtype=torch.int32)}, "is packed by compressed-tensors"),
        ({f"{PROJECTION}.weight_scale_inv": torch.zeros(1, 1)}, "is the scale of a weight in FP8"),
        ({f"{PROJECTION}.weight": torch.zeros(32, 32).to(torch.float8_e4m3fn)}, r"is a weight in FP8 \(F8_E4M3\)"),
        (
            {f"{PROJECTION}.scales": torch.zeros(4), f"{PROJECTION}.biases": torch.zeros(4)},
            "biases is of a weight that MLX",
        ),
        ({f"{PROJECTION}.lora_A.weight": torch.zeros(2, 32)}, "is of an adapter that is not merged.*merge_and_unload"),
        ({"layers.0.attention.wq.weight": torch.zeros(4, 4)}, "is named as in the authors' own code"),
    ],
)
def test_tensors_of_other_layouts_are_named(folder: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | tensors, file)
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(folder)
