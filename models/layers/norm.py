"""Root-mean-square normalisation (Zhang & Sennrich 2019), with statistics in float32.

As in Llama, the normalised value is rounded to the model's dtype before it is multiplied by the weight; Helium
multiplies in float32 and rounds afterwards.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.kernels.compiled import native_for
from models.weights.loadable import Loadable, Slot, unallocated, whole


def rms_normalize(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """X [T, H] or [T, heads, D] / rms(x) over the last dimension, times `weight`, which broadcasts against x."""
    library = native_for(x)
    if library is not None:
        return library.norm(x, weight, eps)
    return F.rms_norm(x, x.shape[-1:], None, eps).mul_(weight)


class RMSNorm(Loadable):
    """x [..., H] -> [..., H]. `rounds_last`: the weight is multiplied in float32."""

    weight: nn.Parameter

    def __init__(self, name: str, size: int, eps: float, *, rounds_last: bool = False) -> None:
        super().__init__()
        self.name, self.eps, self.rounds_last = name, eps, rounds_last
        self.weight = unallocated(size)

    def slots(self) -> list[Slot]:
        return [norm_slot(self.name, "weight", self.weight.shape[0])]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rounds_last and x.dtype != torch.float32:
            library = native_for(x)
            if library is not None:
                return library.norm(x, self.weight, self.eps, rounds_last=True)
            return F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps).to(x.dtype)
        return rms_normalize(x, self.weight, self.eps)


class HeadNorm(Loadable):
    """Normalises every query head by one weight [D] and every key head by another, in one pass over [T, Q + K, D]."""

    query: nn.Parameter
    key: nn.Parameter
    weight: torch.Tensor

    def __init__(
        self, query_name: str, key_name: str, *, num_query_heads: int, num_key_heads: int, head_dim: int, eps: float
    ) -> None:
        super().__init__()
        self.names = (query_name, key_name)
        self.num_query_heads, self.num_key_heads, self.eps = num_query_heads, num_key_heads, eps
        self.query = unallocated(head_dim)
        self.key = unallocated(head_dim)

    def slots(self) -> list[Slot]:
        size = self.query.shape[0]
        return [norm_slot(name, parameter, size) for name, parameter in zip(self.names, ("query", "key"), strict=True)]

    def finalize(self) -> None:
        heads = [self.query.data.expand(self.num_query_heads, -1), self.key.data.expand(self.num_key_heads, -1)]
        self.weight = torch.cat(heads)  # [Q + K, D]

    def forward(self, qk: torch.Tensor) -> torch.Tensor:  # [T, Q + K, D]
        return rms_normalize(qk, self.weight, self.eps)


def norm_slot(name: str, parameter: str, size: int) -> Slot:
    """The slot of a one-dimensional weight that every rank holds whole."""
    return Slot(name=f"{name}.weight", shape=(size,), source=whole((size,)), parameter=parameter, target=whole((size,)))
