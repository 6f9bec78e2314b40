"""Which tensors a Zamba2 is made of: the published shapes, and shared blocks wherever a file keeps them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Zamba2Config, Zamba2ForCausalLM

from models import Scorer
from models.config.model_config import ModelConfig
from models.errors import CheckpointError
from models.networks.decoder import BuildOptions
from models.networks.zamba2 import Zamba2Decoder
from models.weights.loadable import Loadable
from tests.helpers.models.paged import BACKEND
from tests.helpers.models.tiny_engine import prompts
from tests.helpers.models.tiny_zamba2 import layers

CheckpointMaker = Callable[..., Path]
TWO_BLOCKS: dict[str, Any] = {
    "num_mem_blocks": 2,
    "use_shared_attention_adapter": True,
    **layers(7, 2, 3, 5, 6),
}  # block 0 in layers 2 and 5 with adapters 0 and 2, block 1 in layers 3 and 6 with 1 and 3

PUBLISHED: dict[str, dict[str, Any]] = {
    "1.2B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "n_mamba_heads": 64,
        "mamba_d_state": 128,
        "use_shared_attention_adapter": True,
        "use_mem_rope": True,
        **layers(38, 5, 11, 17, 23, 29, 35),
    },
    "2.7B": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "n_mamba_heads": 80,
        "num_mem_blocks": 2,
        **layers(54, 6, 12, 18, 24, 30, 36, 42, 47, 51),
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "n_mamba_heads": 112,
        "mamba_ngroups": 2,
        "num_mem_blocks": 2,
        "use_mem_rope": True,
        **layers(81, 6, 11, 17, 23, 29, 35, 41, 47, 53, 59, 65, 71, 77),
    },
}
NUM_PARAMETERS = {"1.2B": 1_215_064_704, "2.7B": 2_662_214_560, "7B": 7_356_749_648}
NUM_TENSORS = {"1.2B": 406, "2.7B": 531, "7B": 786}


def published_shapes(folder: Path, fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor that the decoder of this config asks for."""
    (folder / "config.json").write_text(json.dumps({"model_type": "zamba2", **fields}))
    options = BuildOptions(backend=BACKEND, max_model_len=128)
    decoder = Zamba2Decoder(ModelConfig.from_pretrained(folder), options)
    slots = [slot for module in decoder.modules() if isinstance(module, Loadable) for slot in module.slots()]
    shapes: dict[str, tuple[int, ...]] = {}
    for slot in slots:
        assert shapes.setdefault(slot.name, slot.shape) == slot.shape
    return shapes


@pytest.mark.parametrize("size", list(PUBLISHED))
def test_the_published_models_have_these_tensors(size: str, tmp_path: Path) -> None:
    shapes = published_shapes(tmp_path, PUBLISHED[size])
    with torch.device("meta"):
        oracle: Any = Zamba2ForCausalLM(Zamba2Config(**PUBLISHED[size]))
    expected = {name.removeprefix("model."): tuple(tensor.shape) for name, tensor in oracle.named_parameters()}
    assert shapes == expected
    assert len(shapes) == NUM_TENSORS[size]
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == NUM_PARAMETERS[size]


def test_a_shared_block_is_asked_for_under_the_first_layer_that_calls_it(tmp_path: Path) -> None:
    shapes = published_shapes(tmp_path, PUBLISHED["2.7B"])
    shared = {name.split(".shared_transformer.")[0] for name in shapes if "shared_transformer" in name}
    assert shared == {"layers.6", "layers.12"}
    own = [name for name in shapes if name.startswith("layers.6.shared") and "adapter_list" in name]
    adapters = {int(name.split("adapter_list.")[1][0]) for name in own}
    assert adapters == {0, 2, 4, 6, 8}
    assert {f"layers.{index}.linear.weight" for index in (6, 12, 47, 51)} <= set(shapes)


def copied(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The checkpoint with changed tensors."""
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    return target


def under_every_layer(tensors: dict[str, torch.Tensor]) -> None:
    for source, target in ((2, 5), (3, 6)):
        for name, tensor in list(tensors.items()):
            prefix = f"model.layers.{source}.shared_transformer."
            if name.startswith(prefix):
                tensors[name.replace(prefix, f"model.layers.{target}.shared_transformer.")] = tensor.clone()


def under_the_last_layer(tensors: dict[str, torch.Tensor]) -> None:
    for source, target in ((2, 5), (3, 6)):
        prefix = f"model.layers.{source}.shared_transformer."
        for name in [name for name in tensors if name.startswith(prefix)]:
            tensors[name.replace(prefix, f"model.layers.{target}.shared_transformer.")] = tensors.pop(name)


def adapters_under_their_own_layer(tensors: dict[str, torch.Tensor]) -> None:
    """Every layer holds its block, and only the adapters it uses itself."""
    under_every_layer(tensors)
    layer_of = {"0": "2", "1": "3", "2": "5", "3": "6"}
    for name in [name for name in tensors if "adapter_list" in name]:
        if layer_of[name.split("adapter_list.")[1][0]] != name.split(".")[2]:
            del tensors[name]


@pytest.mark.parametrize("change", [under_every_layer, under_the_last_layer, adapters_under_their_own_layer])
def test_a_shared_block_is_found_wherever_a_file_keeps_it(
    zamba2_checkpoint: CheckpointMaker, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    folder = zamba2_checkpoint(**TWO_BLOCKS)
    assert sum("shared_transformer" in name for name in load_file(folder / "model.safetensors")) == 2 * (8 + 2 * 8)
    expected = Scorer.from_pretrained(folder).score(prompts())
    found = Scorer.from_pretrained(copied(folder, tmp_path / "copy", change)).score(prompts())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_copies_of_a_shared_block_that_differ_are_refused_by_both_names(
    zamba2_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        under_every_layer(tensors)
        tensors["model.layers.6.shared_transformer.self_attn.o_proj.weight"][3, 5] += 1.0

    folder = copied(zamba2_checkpoint(**TWO_BLOCKS), tmp_path / "copy", change)
    with pytest.raises(
        CheckpointError,
        match=r"model\.layers\.3\.shared_transformer\.self_attn\.o_proj\.weight and "
        r"model\.layers\.6\.shared_transformer\.self_attn\.o_proj\.weight are one tensor",
    ):
        Scorer.from_pretrained(folder)


def test_a_shared_block_under_a_layer_that_is_not_hybrid_is_unexpected(
    zamba2_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.2.shared_transformer.pre_ff_layernorm.weight"
        tensors[name.replace("2", "1", 1)] = tensors.pop(name)

    folder = copied(zamba2_checkpoint(**TWO_BLOCKS), tmp_path / "copy", change)
    with pytest.raises(
        CheckpointError,
        match=r"1 missing: layers\.2\.shared_transformer\.pre_ff_layernorm\.weight\. "
        r"1 unexpected: model\.layers\.1\.shared_transformer\.pre_ff_layernorm\.weight",
    ):
        Scorer.from_pretrained(folder)


def test_a_block_belongs_to_hybrid_layers_by_their_order_not_by_their_number(tmp_path: Path) -> None:
    published_shapes(tmp_path, {"hidden_size": 64, "intermediate_size": 64, **TWO_BLOCKS})
    options = BuildOptions(backend=BACKEND, max_model_len=8)
    decoder = Zamba2Decoder(ModelConfig.from_pretrained(tmp_path), options)
    names = [decoder.canonical_name(f"layers.{layer}.shared_transformer.x") for layer in (2, 3, 5, 6, 4)]
    assert [name.split(".")[1] for name in names] == ["2", "3", "2", "3", "4"]
    assert decoder.canonical_name("layers.5.linear.weight") == "layers.5.linear.weight"
