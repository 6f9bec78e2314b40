"""Weights from safetensors files into layers: names, shapes, and one layer's slices at a time.

A `Checkpoint` is an opened folder: which tensors it has, under their canonical names, and where they lie.
`load_weights` fills a model's `Loadable` layers from it. Neither knows of ranks, fusing or packing: a layer's slots
say what it wants and where it goes.

Canonical names have no prefix: bodies are published as `model.*` (most classes), `transformer.*` (question
answering) or bare (base models), and any task head may stand on any of them.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from models.errors import CheckpointError
from models.layers.loadable import FLOATS, Loadable, Range, Slot, whole

logger = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
EMBEDDING = "embed_tokens.weight"
LM_HEAD = "lm_head.weight"

_BODY_PREFIXES = ("model.", "transformer.")
_HEAD_NAMES = frozenset({LM_HEAD, "score.weight", "score.bias", "qa_outputs.weight", "qa_outputs.bias"})
_OLD_NAMES = {"classifier.weight": "score.weight", "classifier.bias": "score.bias"}
_MAX_NAMES_SHOWN = 8
_CHUNK_BYTES = 64 * 2**20
_MAX_ITEM_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """Where one tensor lies: its file, its name there, its place in reading order, and what it is."""

    file: Path
    name: str
    position: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """An opened checkpoint folder. Holds no data: `read` maps the file for as long as the tensor it returns lives.

    `is_tied` says whether the head is the embedding; it is settled by `resolve_tie`, and False before.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor]
    is_tied: bool = False

    @classmethod
    def open(cls, path: str | Path) -> "Checkpoint":
        """Reads the headers of `model.safetensors`, or of the shards that `model.safetensors.index.json` names.

        Raises:
            CheckpointError: there are no safetensors weights, a file is missing, cut short or corrupt, or index and
                shards disagree.
        """
        folder = Path(path)
        stored = [tensor for tensor in _list_tensors(folder) if not _is_derived(tensor.name)]
        tensors: dict[str, StoredTensor] = {}
        for tensor in stored:
            name = _canonical_name(tensor.name)
            if name in tensors:
                raise CheckpointError(
                    f"{folder} holds both {tensors[name].name} and {tensor.name}, which name one tensor; remove one"
                )
            tensors[name] = tensor
        return cls(folder=folder, tensors=tensors)

    def read(self, name: str, ranges: Sequence[Range]) -> torch.Tensor:
        """One tensor's part, as a view of the mapped file: copy what is to be kept, and do not write to it.

        Raises:
            CheckpointError: the file can no longer be read.
        """
        tensor = self.tensors[name]
        with _readable(tensor.file), safe_open(str(tensor.file), framework="pt") as file:
            if not ranges:
                scalar: torch.Tensor = file.get_tensor(tensor.name)
                return scalar
            part: torch.Tensor = file.get_slice(tensor.name)[tuple(slice(start, stop) for start, stop in ranges)]
            return part

    def resolve_tie(self, *, declared: bool) -> "Checkpoint":
        """Settles whether the head is the embedding, where config.json declares it, as transformers does.

        A tied checkpoint usually has one of the two tensors; either stands for both. Some hold both: equal, they are
        tied; different, they are kept apart, with a warning. In the checkpoint returned a tied head has only its
        embedding.
        """
        if not declared:
            return self
        if LM_HEAD not in self.tensors:
            return replace(self, is_tied=True)
        if EMBEDDING in self.tensors and not self._are_equal(EMBEDDING, LM_HEAD):
            logger.warning(
                "%s declares tied embeddings, but its %s differs from %s; both are used",
                self.folder, LM_HEAD, EMBEDDING,
            )  # fmt: skip
            return self
        tensors = dict(self.tensors)
        head = tensors.pop(LM_HEAD)
        return replace(self, tensors={EMBEDDING: head} | tensors, is_tied=True)

    def _are_equal(self, first: str, second: str) -> bool:
        """Compares two tensors piece by piece, in bounded memory."""
        if self.tensors[first].shape != self.tensors[second].shape:
            return False
        return all(
            bool((self.read(first, piece) == self.read(second, piece)).all())
            for piece in _pieces(whole(self.tensors[first].shape))
        )


def load_weights(model: nn.Module, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> None:
    """Fills every `Loadable` of the model in file order; each is complete before the next gets storage.

    All names and shapes are checked before anything is read. Mutates the layers' parameters.

    Raises:
        CheckpointError: tensors are missing, unexpected, misshapen or not floating point; the text names them, up to
            a limit.
    """
    layers = [(module, module.slots()) for module in model.modules() if isinstance(module, Loadable)]
    _check(checkpoint, [slot for _, slots in layers for slot in slots])
    for layer, slots in sorted(layers, key=lambda pair: _reading_order(checkpoint, pair[1])):
        layer.materialize(dtype=dtype, device=device)
        for slot in slots:
            _fill(layer, slot, checkpoint)
        layer.finalize()
    left = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert not left, f"parameters that no Loadable layer owns: {left}"


def _list_tensors(folder: Path) -> list[StoredTensor]:
    """Every stored tensor in reading order: file by file, by offset."""
    if (folder / SINGLE_FILE).exists():
        return _read_header(folder / SINGLE_FILE)
    if not (folder / INDEX_FILE).exists():
        raise CheckpointError(_why_there_are_no_weights(folder))
    file_names = _read_index(folder / INDEX_FILE)
    shards = sorted(set(file_names.values()))
    missing = [name for name in shards if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder / INDEX_FILE} names shards that are not there: {_listed(missing)}; download the checkpoint again"
        )
    stored = [tensor for name in shards for tensor in _read_header(folder / name)]
    found = {(tensor.name, tensor.file.name) for tensor in stored}
    misplaced = [f"{name} in {file}" for name, file in file_names.items() if (name, file) not in found]
    if misplaced:
        raise CheckpointError(
            f"{folder / INDEX_FILE} says where tensors are that are not there: {_listed(misplaced)}; "
            "index and shards are from different checkpoints: download it again"
        )
    return [tensor for tensor in stored if file_names.get(tensor.name) == tensor.file.name]


def _why_there_are_no_weights(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder: give a Hugging Face checkpoint folder"
    others = sorted(file.name for file in folder.glob("*.safetensors*"))
    pickles = sorted(file.name for ending in ("*.bin", "*.pt", "*.pth") for file in folder.glob(ending))
    wanted = f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}"
    if others:
        return (
            f"{wanted}, but {_listed(others)}: rename a single file to {SINGLE_FILE}, or bring the index of the shards"
        )
    if pickles:
        return (
            f"{wanted}, only pickled weights ({_listed(pickles)}), which are never opened, since a pickle can run code: "
            "save the model again as safetensors (transformers: save_pretrained)"
        )
    return f"{wanted}: it holds no weights; give a folder with a complete checkpoint"


def _read_index(file: Path) -> Mapping[str, str]:
    """Tensor name to shard name."""
    try:
        weight_map = json.loads(file.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read as a safetensors index: {error!r}; download it again") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{file}: weight_map must be an object from tensor names to file names; download it again"
        )
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{file} names the shard {name!r}; it must be a .safetensors file in the same folder")
    return weight_map


def _read_header(file: Path) -> list[StoredTensor]:
    with _readable(file), safe_open(str(file), framework="pt") as opened:
        slices: list[tuple[str, Any]] = [(name, opened.get_slice(name)) for name in opened.offset_keys()]
        return [
            StoredTensor(file=file, name=name, position=position, shape=tuple(part.get_shape()), dtype=part.get_dtype())
            for position, (name, part) in enumerate(slices)
        ]


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns what safetensors raises into an error that says what to do."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{file} is cut short or corrupt ({error}); download it again") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error}); check its path and permissions") from error


def _canonical_name(name: str) -> str:
    """The name without its body's prefix; task heads never have one."""
    name = _OLD_NAMES.get(name, name)
    for prefix in _BODY_PREFIXES:
        if name.startswith(prefix) and name.removeprefix(prefix) not in _HEAD_NAMES:
            return name.removeprefix(prefix)
    return name


def _is_derived(name: str) -> bool:
    """Old files hold rotary frequencies, which follow from the configuration."""
    return name.split(".")[-2:] == ["rotary_emb", "inv_freq"]


def _check(checkpoint: Checkpoint, slots: Sequence[Slot]) -> None:
    """Compares what the layers ask for with what the files hold, before anything is read."""
    tensors = checkpoint.tensors
    wanted = {slot.name: slot.shape for slot in slots}
    missing = [name for name in wanted if name not in tensors]
    unexpected = [tensor.name for name, tensor in tensors.items() if name not in wanted]
    misshapen = [
        f"{name} is {list(tensors[name].shape)} and must be {list(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    of_floats = [slot.name for slot in slots if slot.stored == FLOATS and slot.name in tensors]
    unreadable = [f"{name} is {tensors[name].dtype}" for name in of_floats if tensors[name].dtype not in FLOATS]
    mistyped = [
        f"{slot.name} is {tensors[slot.name].dtype} and must be {' or '.join(slot.stored)}"
        for slot in slots
        if slot.stored != FLOATS and slot.name in tensors and tensors[slot.name].dtype not in slot.stored
    ]
    problems = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of the wrong shape", misshapen),
            (f"not {', '.join(FLOATS)} (quantized already, and config.json does not say how?)", unreadable),
            ("of the wrong type", mistyped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json and the task head asked for. {'. '.join(problems)}. "
            "Give the checkpoint of this model and head, whole"
        )


def _listed(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _reading_order(checkpoint: Checkpoint, slots: Sequence[Slot]) -> tuple[str, int]:
    """Where the first of a layer's tensors lies."""
    stored = (checkpoint.tensors[slot.name] for slot in slots)
    return min(((str(tensor.file), tensor.position) for tensor in stored), default=("", 0))


@torch.no_grad()
def _fill(layer: Loadable, slot: Slot, checkpoint: Checkpoint) -> None:
    """Copies one slot's part of its tensor to its place, piece by piece, converting on the way."""
    parameter: torch.Tensor = getattr(layer, slot.parameter)
    target = parameter[tuple(slice(start, stop) for start, stop in slot.target)]
    for piece in _pieces(slot.source):
        part = checkpoint.read(slot.name, piece)
        if not piece:
            target.copy_(part)
            continue
        first = piece[0][0] - slot.source[0][0]
        rows = target[first : first + part.shape[0]]
        assert rows.shape == part.shape, f"{slot.name}: source {slot.source} does not fit target {slot.target}"
        rows.copy_(part)


def _pieces(ranges: tuple[Range, ...]) -> Iterator[tuple[Range, ...]]:
    """Cuts a part of a tensor along its first dimension.

    Each piece is mapped, copied and unmapped on its own: mapped pages count as this process's memory until then.
    """
    if not ranges:
        yield ranges
        return
    (start, stop), rest = ranges[0], ranges[1:]
    row_bytes = math.prod(end - begin for begin, end in rest) * _MAX_ITEM_BYTES
    step = max(1, _CHUNK_BYTES // max(1, row_bytes))
    for first in range(start, stop, step):
        yield (first, min(first + step, stop)), *rest
