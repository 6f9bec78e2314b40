"""Linear layers that know which part of a published projection they hold, and load exactly that.

A `ColumnLinear` splits rows of the weight (output channels), a `RowLinear` its columns (input channels) and sums
over the ranks. On the CPU the finished weight is packed (see `kernels`). Neither knows about quantization: a weight
of another form is held by a module that is handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.kernels.products import Product, packed_product
from models.parallel.tensor_parallel import TensorParallel
from models.weights.loadable import Loadable, Range, Slot, unallocated, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Rows `rows` of the published weight `name`.weight [out_features, in_features], which this rank holds."""

    name: str
    out_features: int
    rows: Range


class Linear(Loadable):
    """y = x Wᵀ + b, where W is the given parts stacked by rows, restricted to the input channels `columns`."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, parts: Sequence[Part], in_features: int, *, columns: Range | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.in_features = in_features
        self.columns = columns or (0, in_features)
        self.out_local = sum(stop - start for start, stop in (part.rows for part in self.parts))
        self.weight = unallocated(self.out_local, self.columns[1] - self.columns[0])
        self.bias = unallocated(self.out_local) if bias else None
        self.held: nn.Module | None = None
        self.product: Product | None = None

    def hold(self, weight: nn.Module) -> None:
        """Leaves the weight of all parts to a module that loads it and maps x [T, in] -> x Wᵀ [T, out], in a dtype of
        its choice. Call before loading."""
        self.weight, self.held = None, weight

    def slots(self) -> list[Slot]:
        slots: list[Slot] = []
        row = 0
        for part in self.parts:
            rows = (row, row := row + part.rows[1] - part.rows[0])
            if self.weight is not None:
                slots.append(
                    Slot(
                        name=f"{part.name}.weight",
                        shape=(part.out_features, self.in_features),
                        source=(part.rows, self.columns),
                        parameter="weight",
                        target=(rows, (0, self.columns[1] - self.columns[0])),
                    )
                )
            if self.bias is not None:
                slots.append(
                    Slot(
                        name=f"{part.name}.bias",
                        shape=(part.out_features,),
                        source=(part.rows,),
                        parameter="bias",
                        target=(rows,),
                    )
                )
        return slots

    def finalize(self) -> None:
        if self.held is not None:
            return
        assert self.weight is not None
        self.product = packed_product(self.weight.data, self.fused_bias())
        if self.product is not None:
            self.weight = None

    def fused_bias(self) -> torch.Tensor | None:
        """The bias that goes into the product itself."""
        return None if self.bias is None else self.bias.data

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [T, in] -> [T, out]
        if self.product is not None:
            return self.product(x)
        if self.held is not None:
            return self._multiply_held(self.held, x)
        assert self.weight is not None
        return F.linear(x, self.weight, self.fused_bias())

    def _multiply_held(self, held: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = held(x)
        bias = self.fused_bias()
        return (y if bias is None else y + bias).to(x.dtype)


class ColumnLinear(Linear):
    """Output channels split over the ranks; every rank sees the whole input and makes its own channels."""


class RowLinear(Linear):
    """Input channels split over the ranks; the products are summed, and the bias is added once, after the sum."""

    def __init__(
        self, name: str, in_features: int, out_features: int, *, tp: TensorParallel, bias: bool = False
    ) -> None:
        part = Part(name=name, out_features=out_features, rows=(0, out_features))
        super().__init__([part], in_features, columns=tp.share(in_features, f"input channels of {name}"), bias=bias)
        self.tp = tp

    def fused_bias(self) -> torch.Tensor | None:
        return super().fused_bias() if self.tp.size == 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [T, in/size] -> [T, out]
        y = self.tp.all_reduce(super().forward(x))
        return y if self.tp.size == 1 or self.bias is None else y + self.bias


def split_rows(name: str, out_features: int, *, tp: TensorParallel) -> Part:
    """The rank's equal share of one projection's output channels."""
    return Part(name=name, out_features=out_features, rows=tp.share(out_features, f"output channels of {name}"))


def head_rows(name: str, heads: Sequence[int], *, num_heads: int, head_dim: int) -> list[Part]:
    """The output channels of these attention heads, one part for each run of successive ones."""
    runs: list[list[int]] = []
    for head in heads:
        if runs and head == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([head, head + 1])
    size = num_heads * head_dim
    return [Part(name=name, out_features=size, rows=(first * head_dim, last * head_dim)) for first, last in runs]


def qkv_rows(
    name: str,
    query_heads: Sequence[int],
    kv_heads: Sequence[int],
    *,
    num_query_heads: int,
    num_kv_heads: int,
    head_dim: int,
) -> list[Part]:
    """The output channels of these heads of the query, key and value projections of the attention `name`."""
    kinds = (("q", query_heads, num_query_heads), ("k", kv_heads, num_kv_heads), ("v", kv_heads, num_kv_heads))
    return [
        part
        for letter, heads, num_heads in kinds
        for part in head_rows(f"{name}.{letter}_proj", heads, num_heads=num_heads, head_dim=head_dim)
    ]


def gate_up_rows(name: str, intermediate_size: int, *, tp: TensorParallel) -> list[Part]:
    """The rank's share of the gate and up projections of the gated MLP `name`."""
    return [split_rows(f"{name}.{part}", intermediate_size, tp=tp) for part in ("gate_proj", "up_proj")]


def fused(name: str, parts: Sequence[Part]) -> list[Part]:
    """The same output channels, where the projections that `parts` name are published one below the other as one
    weight, in the order they are named."""
    firsts: dict[str, int] = {}
    total = 0
    for part in parts:
        if part.name not in firsts:
            firsts[part.name] = total
            total += part.out_features
    return [
        Part(
            name=name,
            out_features=total,
            rows=(firsts[part.name] + part.rows[0], firsts[part.name] + part.rows[1]),
        )
        for part in parts
    ]


def replicated(name: str, out_features: int) -> Part:
    """All output channels, on every rank."""
    return Part(name=name, out_features=out_features, rows=whole((out_features,))[0])
