"""Weights from safetensors files into layers: names, shapes, and one layer's slices at a time.

A `Checkpoint` is an opened folder, with the tensors that `models.checkpoint.stored_tensors` finds there.
`load_weights` fills a model's `Loadable` layers from it. Neither knows of ranks, fusing or packing: a layer's slots
say what it wants and where it goes.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from models.checkpoint.other_layouts import listed
from models.checkpoint.place import local_folder
from models.checkpoint.stored_tensors import EMBEDDING, HEAD_NAMES, LM_HEAD, StoredTensor, readable, stored_tensors
from models.errors import CheckpointError
from models.weights.loadable import FLOATS, Loadable, Range, Slot, whole

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 2**20
_MAX_ITEM_BYTES = 8


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
        """Reads the headers of `model.safetensors`, or of the shards that `model.safetensors.index.json` names. `path` is whatever
        `models.checkpoint.place` finds.

        Raises:
            CheckpointError: there are no safetensors weights, a file is missing, cut short or corrupt, or index and
                shards disagree.
        """
        folder = local_folder(path)
        return cls(folder=folder, tensors=stored_tensors(folder))

    def read(self, name: str, ranges: Sequence[Range]) -> torch.Tensor:
        """One tensor's part, as a view of the mapped file: copy what is to be kept, and do not write to it.

        Raises:
            CheckpointError: the file can no longer be read.
        """
        tensor = self.tensors[name]
        with readable(tensor.file), safe_open(str(tensor.file), framework="pt") as file:
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

    def without_heads(self) -> "Checkpoint":
        """The body alone."""
        return replace(self, tensors={name: tensor for name, tensor in self.tensors.items() if name not in HEAD_NAMES})

    def unify(self, canonical_name: Callable[[str], str]) -> "Checkpoint":
        """Tensors under the names that `canonical_name` gives them. Where several names stand for one tensor, the first
        one stored is kept.

        Raises:
            CheckpointError: two that should be one tensor differ; the text names both.
        """
        name_of: dict[str, str] = {}
        for name in self.tensors:
            kept = name_of.setdefault(canonical_name(name), name)
            if kept != name and not self._are_equal(kept, name):
                raise CheckpointError(
                    f"{self.folder}: {self.tensors[kept].name} and {self.tensors[name].name} are one tensor in this network, "
                    "but they differ; keep one of them, or give the checkpoint as it was published"
                )
        return replace(self, tensors={canonical: self.tensors[name] for canonical, name in name_of.items()})

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
        f"{len(names)} {kind}: {listed(names)}"
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
        advice = "Give the checkpoint of this model and head, whole"
        if missing == [LM_HEAD]:
            advice = "An embedding model has no language-model head: load it with head='embedding'"
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json and the task head asked for. {'. '.join(problems)}. {advice}"
        )


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
