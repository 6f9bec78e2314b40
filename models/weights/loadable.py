"""How a layer says what it needs from a checkpoint.

A layer that owns weights is a `Loadable`: it lists the published tensors it is made of as `Slot`s, each with the
part this rank reads and the place it goes to. `models.weights.weights` fills the slots; it knows nothing of sharding, fusing
or packing.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

Range = tuple[int, int]
FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the types of unquantized weights."""

_OWN_PAGES_BYTES = 1 << 20
_PAGES = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """One published tensor, the part of it this rank holds, and where that part goes.

    `name` is the whole dotted name without the body's prefix (`layers.0.self_attn.q_proj.weight`, `norm.weight`,
    `lm_head.weight`); `shape` the published, unsharded shape; `source` one (start, stop) a dimension of the
    published tensor; `parameter` the attribute of the layer that receives it; `target` one (start, stop) a dimension
    of that parameter. `stored` lists the types that the file may have it in, as safetensors names them.
    """

    name: str
    shape: tuple[int, ...]
    source: tuple[Range, ...]
    parameter: str
    target: tuple[Range, ...]
    stored: tuple[str, ...] = FLOATS


def whole(shape: Sequence[int]) -> tuple[Range, ...]:
    """The ranges that cover a tensor of this shape."""
    return tuple((0, size) for size in shape)


def unallocated(*shape: int) -> nn.Parameter:
    """A parameter of this shape without storage, as layers are built; `Loadable.materialize` gives it some."""
    return nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)


class Loadable(nn.Module):
    """A layer with weights of its own. Built without storage (on the meta device), filled slot by slot.

    The loader calls `materialize` before the first of the layer's slots is filled and `finalize` after the last, so
    a layer that packs or quantizes its weight holds one unpacked tensor at a time.
    """

    def slots(self) -> list[Slot]:
        """The published tensors this layer is made of."""
        raise NotImplementedError

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        """Gives every parameter storage of this dtype on this device, zeroed."""
        for name, parameter in list(self.named_parameters(recurse=False)):
            empty = _zeros(parameter.shape, dtype, device)
            setattr(self, name, nn.Parameter(empty, requires_grad=False))

    def num_bytes(self, dtype: torch.dtype) -> int:
        """The bytes that this layer's own weights take once loaded in `dtype`."""
        return sum(parameter.numel() for parameter in self.parameters(recurse=False)) * dtype.itemsize

    def finalize(self) -> None:
        """Called once after the last slot is filled: the place to pack or quantize."""


def _zeros(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on the CPU large ones in pages of their own.

    Those go back to the system when a layer that has packed its weight drops it. The allocator would keep them, in
    holes between packed weights, and a model would peak at a tenth more than its size. Asking for all pages at once is
    several times faster than touching one after the other.
    """
    num_bytes = shape.numel() * dtype.itemsize
    if device.type != "cpu" or num_bytes < _OWN_PAGES_BYTES:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, num_bytes, flags=_PAGES), dtype=dtype).view(shape)
