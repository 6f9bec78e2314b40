"""Reading safetensors folders, and filling layers from them."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import CheckpointError
from models.weights import weights
from models.weights.loadable import Loadable, Range, Slot, whole
from models.weights.weights import Checkpoint, load_weights
from tests.models.conftest import CheckpointMaker

CPU = torch.device("cpu")
BODY = {
    "embed_tokens.weight": torch.arange(32.0).reshape(8, 4),
    "layers.0.proj.weight": torch.arange(16.0).reshape(4, 4) + 100,
    "layers.1.proj.weight": torch.arange(16.0).reshape(4, 4) + 200,
    "layers.10.proj.weight": torch.arange(16.0).reshape(4, 4) + 300,
    "norm.weight": torch.arange(4.0) + 400,
}


class Whole(Loadable):
    """A layer that wants one tensor as it is."""

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        super().__init__()
        self.name, self.shape = name, tuple(shape)
        self.weight = nn.Parameter(torch.empty(self.shape, device="meta"), requires_grad=False)

    def slots(self) -> list[Slot]:
        return [self.slot(self.name, "weight")]

    def slot(self, name: str, parameter: str) -> Slot:
        return Slot(
            name=name, shape=self.shape, source=whole(self.shape), parameter=parameter, target=whole(self.shape)
        )


class Part(Loadable):
    """A layer that wants a corner of one tensor, and puts it into a corner of its own."""

    def __init__(self, name: str, shape: Sequence[int], source: tuple[Range, ...], target: tuple[Range, ...]) -> None:
        super().__init__()
        self.name, self.shape, self.source, self.target = name, tuple(shape), source, target
        self.weight = nn.Parameter(torch.empty(4, 6, device="meta"), requires_grad=False)

    def slots(self) -> list[Slot]:
        return [Slot(name=self.name, shape=self.shape, source=self.source, parameter="weight", target=self.target)]


def body_model(**heads: Sequence[int]) -> nn.ModuleDict:
    """Layers for BODY and some head tensors, keyed by name with dots as dashes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in BODY.items()}
    shapes |= {name.replace("__", "."): tuple(shape) for name, shape in heads.items()}
    return nn.ModuleDict({name.replace(".", "-"): Whole(name, shape) for name, shape in shapes.items()})


def save(folder: Path, tensors: dict[str, torch.Tensor], file: str = "model.safetensors") -> Path:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / file)
    return folder


def save_shards(folder: Path, *shards: dict[str, torch.Tensor]) -> Path:
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save(folder, tensors, file)
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def load(folder: Path, model: nn.Module, dtype: torch.dtype = torch.float32, *, declared: bool = False) -> nn.Module:
    load_weights(model, Checkpoint.open(folder).resolve_tie(declared=declared), dtype=dtype, device=CPU)
    return model


def assert_holds(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(model.get_submodule(name.replace(".", "-")).weight.data, tensor, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "model.", "transformer."])
@pytest.mark.parametrize(
    "head", ["lm_head.weight", "score.weight", "score.bias", "qa_outputs.weight", "qa_outputs.bias"]
)
def test_any_prefix_goes_with_any_head(tmp_path: Path, prefix: str, head: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in BODY.items()} | {head: torch.ones(3)}
    model = load(save(tmp_path, tensors), body_model(**{head.replace(".", "__"): (3,)}))
    assert_holds(model, BODY | {head: torch.ones(3)})


def test_old_classifier_names_are_the_score(tmp_path: Path) -> None:
    tensors = BODY | {"classifier.weight": torch.ones(2, 4), "classifier.bias": torch.ones(2)}
    model = load(save(tmp_path, tensors), body_model(score__weight=(2, 4), score__bias=(2,)))
    assert_holds(model, {"score.weight": torch.ones(2, 4), "score.bias": torch.ones(2)})


def test_rotary_frequencies_of_old_files_are_ignored(tmp_path: Path) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in BODY.items()}
    tensors |= {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
        "model.rotary_emb.inv_freq": torch.ones(2),
    }
    assert_holds(load(save(tmp_path, tensors), body_model()), BODY)


def test_names_match_whole_and_never_by_substring(tmp_path: Path) -> None:
    tensors = {"layers.1.qkv_proj.weight": torch.ones(4, 4), "layers.1.v_proj.weight": torch.zeros(4, 4)}
    model = nn.ModuleDict({"v": Whole("layers.1.v_proj.weight", (4, 4))})
    with pytest.raises(CheckpointError, match=r"1 unexpected: layers\.1\.qkv_proj\.weight"):
        load(save(tmp_path, tensors), model)


def test_the_same_tensor_under_two_prefixes_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, {"model.norm.weight": torch.ones(4), "norm.weight": torch.ones(4)})
    with pytest.raises(CheckpointError, match=r"holds both .*norm\.weight and .*norm\.weight"):
        Checkpoint.open(tmp_path)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    names = list(BODY)
    first, second = ({name: BODY[name] for name in part} for part in (names[::2], names[1::2]))
    assert_holds(load(save_shards(tmp_path, first, second), body_model()), BODY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_converted_on_the_way(tmp_path: Path, stored: torch.dtype, dtype: torch.dtype) -> None:
    tensor = torch.linspace(-2, 2, 12).reshape(3, 4).to(stored)
    model = load(save(tmp_path, {"norm.weight": tensor}), nn.ModuleDict({"a": Whole("norm.weight", (3, 4))}), dtype)
    weight = model.get_submodule("a").weight
    assert weight.dtype == dtype
    torch.testing.assert_close(weight.data, tensor.to(dtype), rtol=0, atol=0)


def test_only_the_part_a_slot_asks_for_is_read_and_it_goes_to_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Range, ...]] = []
    real_read = Checkpoint.read

    def spy(self: Checkpoint, name: str, ranges: tuple[Range, ...]) -> torch.Tensor:
        read.append(ranges)
        return real_read(self, name, ranges)

    monkeypatch.setattr(Checkpoint, "read", spy)
    table = torch.arange(64.0).reshape(8, 8)
    part = Part("t.weight", (8, 8), source=((2, 5), (4, 8)), target=((1, 4), (2, 6)))
    load(save(tmp_path, {"t.weight": table}), nn.ModuleDict({"part": part}))
    expected = torch.zeros(4, 6)
    expected[1:4, 2:6] = table[2:5, 4:8]
    torch.testing.assert_close(part.weight.data, expected)
    assert read == [((2, 5), (4, 8))]


def test_a_large_part_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_CHUNK_BYTES", 2 * 4 * weights._MAX_ITEM_BYTES)
    table = torch.arange(77.0).reshape(11, 7)
    part = Part("t.weight", (11, 7), source=((3, 7), (1, 5)), target=((0, 4), (0, 4)))
    load(save(tmp_path, {"t.weight": table}), nn.ModuleDict({"part": part}))
    torch.testing.assert_close(part.weight.data[:, :4], table[3:7, 1:5])


def test_a_number_without_dimensions_is_read(tmp_path: Path) -> None:
    model = load(save(tmp_path, {"scale": torch.tensor(3.5)}), nn.ModuleDict({"a": Whole("scale", ())}))
    assert model.get_submodule("a").get_parameter("weight").item() == 3.5


def test_every_gap_is_named_in_one_error_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "read", lambda *_: pytest.fail("read before the check"))
    tensors = {f"model.{name}": tensor for name, tensor in BODY.items()}
    tensors["model.norm.weight"] = torch.ones(5)
    tensors["model.extra.weight"] = torch.ones(1)
    del tensors["model.layers.1.proj.weight"], tensors["model.embed_tokens.weight"]
    with pytest.raises(CheckpointError) as caught:
        load(save(tmp_path, tensors), body_model())
    text = str(caught.value)
    assert str(tmp_path) in text
    assert "2 missing: embed_tokens.weight, layers.1.proj.weight" in text
    assert "1 unexpected: model.extra.weight" in text
    assert "1 of the wrong shape: norm.weight is [5] and must be [4]" in text


def test_a_long_list_of_gaps_says_how_many_more(tmp_path: Path) -> None:
    tensors = {f"layers.{number}.weight": torch.ones(1) for number in range(30)}
    with pytest.raises(CheckpointError, match=r"30 unexpected: .* and 22 more"):
        load(save(tmp_path, tensors), nn.ModuleDict())


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    tensors = {"norm.weight": torch.ones(4, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match=r"norm\.weight is I8"):
        load(save(tmp_path, tensors), nn.ModuleDict({"a": Whole("norm.weight", (4,))}))


def test_layers_are_finished_one_by_one_in_file_order(tmp_path: Path) -> None:
    events: list[str] = []

    class Pair(Whole):
        def __init__(self, name: str) -> None:
            super().__init__(f"{name}.a", (2,))
            self.other = nn.Parameter(torch.empty(2, device="meta"), requires_grad=False)

        def slots(self) -> list[Slot]:
            return [self.slot(self.name, "weight"), self.slot(self.name.removesuffix("a") + "b", "other")]

        def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
            events.append(f"materialize {self.name}")
            super().materialize(dtype=dtype, device=device)

        def finalize(self) -> None:
            assert self.weight.sum() == 2
            assert self.other.sum() == 4
            events.append(f"finalize {self.name}")

    names = ["layers.2", "layers.0", "layers.1"]
    save(
        tmp_path,
        {f"{name}.{part}": torch.full((2,), value) for name in names for part, value in (("a", 1.0), ("b", 2.0))},
    )
    load(tmp_path, nn.ModuleList([Pair(name) for name in names]))
    assert events == [f"{what} layers.{n}.a" for n in range(3) for what in ("materialize", "finalize")]


def test_several_layers_may_ask_for_one_tensor(tmp_path: Path) -> None:
    model = nn.ModuleList([Whole("embed_tokens.weight", (2, 3)), Whole("embed_tokens.weight", (2, 3))])
    load(save(tmp_path, {"embed_tokens.weight": torch.ones(2, 3)}), model)
    assert [parameter.sum().item() for parameter in model.parameters()] == [6, 6]


def test_a_layer_used_twice_is_filled_once(tmp_path: Path) -> None:
    layer = Whole("norm.weight", (4,))
    model = load(save(tmp_path, {"norm.weight": torch.ones(4)}), nn.ModuleList([layer, layer]))
    assert len(list(model.parameters())) == 1


def test_a_parameter_that_no_layer_fills_is_our_own_bug(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": Whole("norm.weight", (4,)), "b": nn.Linear(2, 2, device="meta")})
    with pytest.raises(AssertionError, match=r"b\.weight"):
        load(save(tmp_path, {"norm.weight": torch.ones(4)}), model)


def both_heads(folder: Path, head: torch.Tensor) -> Path:
    return save(folder, {f"model.{name}": tensor for name, tensor in BODY.items()} | {"lm_head.weight": head})


def test_a_tied_head_that_is_in_the_file_anyway_is_dropped(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(both_heads(tmp_path, BODY["embed_tokens.weight"])).resolve_tie(declared=True)
    assert checkpoint.is_tied
    assert "lm_head.weight" not in checkpoint.tensors
    assert_holds(load(tmp_path, body_model(), declared=True), BODY)


def test_a_head_that_differs_is_kept_apart_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = BODY["embed_tokens.weight"].clone()
    head[-1, -1] += 1
    checkpoint = Checkpoint.open(both_heads(tmp_path, head)).resolve_tie(declared=True)
    assert not checkpoint.is_tied
    assert "lm_head.weight differs from embed_tokens.weight" in caplog.text
    assert_holds(load(tmp_path, body_model(lm_head__weight=(8, 4)), declared=True), BODY | {"lm_head.weight": head})


def test_a_head_alone_is_the_embedding_too(tmp_path: Path) -> None:
    tensors = dict(BODY)
    tensors["lm_head.weight"] = tensors.pop("embed_tokens.weight")
    assert_holds(load(save(tmp_path, tensors), body_model(), declared=True), BODY)


def test_a_head_that_is_not_declared_tied_stays_its_own(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(both_heads(tmp_path, BODY["embed_tokens.weight"])).resolve_tie(declared=False)
    assert not checkpoint.is_tied
    assert "lm_head.weight" in checkpoint.tensors


def test_two_heads_are_compared_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_CHUNK_BYTES", 1)
    head = BODY["embed_tokens.weight"].clone()
    assert Checkpoint.open(both_heads(tmp_path, head)).resolve_tie(declared=True).is_tied
    head[5, 2] += 1
    assert not Checkpoint.open(both_heads(tmp_path, head)).resolve_tie(declared=True).is_tied


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        Checkpoint.open(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        Checkpoint.open(tmp_path / "elsewhere")


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model\.bin\).*save_pretrained"):
        Checkpoint.open(tmp_path)


def test_a_file_of_another_name_is_pointed_out(tmp_path: Path) -> None:
    save(tmp_path, BODY, "adapter.safetensors")
    with pytest.raises(CheckpointError, match=r"but adapter\.safetensors: rename"):
        Checkpoint.open(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": torch.ones(1)}, {"b": torch.ones(1)})
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shards that are not there: model-00002-of-00002\.safetensors"):
        Checkpoint.open(tmp_path)


def test_a_tensor_missing_from_its_shard_is_named(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": torch.ones(1), "b": torch.ones(1)})
    save(tmp_path, {"a": torch.ones(1)}, "model-00001-of-00001.safetensors")
    with pytest.raises(CheckpointError, match=r"b in model-00001-of-00001\.safetensors"):
        Checkpoint.open(tmp_path)


def test_a_tensor_in_the_wrong_shard_is_named(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": torch.ones(1)}, {"b": torch.ones(1)})
    index = tmp_path / "model.safetensors.index.json"
    fields = json.loads(index.read_text())
    fields["weight_map"] = {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}
    index.write_text(json.dumps(fields))
    with pytest.raises(
        CheckpointError, match=r"a in model-00002-of-00002.*index and shards are from different checkpoints"
    ):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 6, 40, -1])
def test_a_shard_cut_short_is_named(tmp_path: Path, keep: int) -> None:
    save_shards(tmp_path, {"a": torch.ones(8)}, {"b": torch.ones(8)})
    file = tmp_path / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is cut short or corrupt"):
        Checkpoint.open(tmp_path)


def test_a_header_that_promises_too_much_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="cut short or corrupt"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.gguf", "holds GGUF files"),
        ("adapter_config.json", r"holds an adapter \(adapter_config\.json\), which changes a model and is not one"),
    ],
)
def test_a_folder_of_another_kind_is_told(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=problem):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_a_broken_index_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "", "..", "model.bin", 3])
def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path, name: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match=r"must be a \.safetensors file in the same folder"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_file_cut_short_is_an_error(tmp_path: Path, keep: int) -> None:
    file = save(tmp_path, BODY) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="cut short or corrupt"):
        Checkpoint.open(tmp_path)


def test_a_corrupt_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(CheckpointError, match="cut short or corrupt"):
        Checkpoint.open(tmp_path)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.open(tmp_path)


def test_loading_does_not_hold_a_second_copy(tmp_path: Path) -> None:
    """Mapped pages count as memory until they are unmapped: between layers no more than one piece may be mapped."""
    mapped: list[bool] = []

    class Watching(Whole):
        def finalize(self) -> None:
            mapped.append(str(tmp_path) in Path(f"/proc/{os.getpid()}/maps").read_text())

    model = nn.ModuleList([Watching(name, tensor.shape) for name, tensor in BODY.items()])
    load(save(tmp_path, BODY), model)
    assert mapped == [False] * len(BODY)


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_a_checkpoint_of_transformers_is_read_whole(
    qwen3_checkpoint: CheckpointMaker, max_shard_size: str, is_tied: bool
) -> None:
    folder = qwen3_checkpoint(max_shard_size=max_shard_size, tie_word_embeddings=is_tied)
    assert (folder / "model.safetensors").exists() == (max_shard_size == "1GB")
    checkpoint = Checkpoint.open(folder).resolve_tie(declared=is_tied)
    assert ("lm_head.weight" in checkpoint.tensors) == (not is_tied)
    for file in folder.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            ours = checkpoint.read(name.removeprefix("model."), whole(tensor.shape))
            torch.testing.assert_close(ours, tensor, rtol=0, atol=0)


def test_the_single_file_wins_over_an_index_beside_it(qwen3_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    shutil.copytree(qwen3_checkpoint(max_shard_size="20KB"), tmp_path, dirs_exist_ok=True)
    save(tmp_path, BODY)
    assert set(Checkpoint.open(tmp_path).tensors) == set(BODY)
