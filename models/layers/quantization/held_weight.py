"""A weight that is held in parts, each in a form of its own, as the published tensors make it up.

A part loads one published tensor, or this rank's share of it; once all are loaded, what can be multiplied at once
without changing a number is put together. What the forms are is the business of others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.kernels.products import Product, packed_product
from models.layers.linear import Part
from models.weights.loadable import Loadable, Range, Slot, unallocated


class Form(Protocol):
    """A finished weight W [out, in]."""

    def product(self) -> Product:
        """A function x [T, in] -> x Wᵀ [T, out] in a dtype of its choice."""

    def above(self, other: object) -> "Form | None":
        """Its rows with the other's below; None if that would change a number, or takes another
        form."""


class Finish(Protocol):
    """Makes a form of loaded floats."""

    def __call__(self, weight: torch.Tensor, name: str) -> Form:
        """`weight` [out, in], called `name`, which is not used again."""

    def num_bytes(self, shape: tuple[int, int], dtype: torch.dtype) -> int:
        """What the form of a weight of this shape takes; `dtype` is the model's."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlainWeight:
    """Floats [out, in]."""

    weight: torch.Tensor

    def product(self) -> Product:
        return packed_product(self.weight, None) or partial(F.linear, weight=self.weight)

    def above(self, other: object) -> "PlainWeight | None":
        return PlainWeight(weight=torch.cat([self.weight, other.weight])) if isinstance(other, PlainWeight) else None


class HeldPart(Loadable):
    """One published tensor's part of a linear layer. `form` is its finished weight, from `finalize` until the weight of
    the layer takes it; `when_loaded` is called in between."""

    def __init__(self, part: Part, in_features: int, columns: Range) -> None:
        super().__init__()
        self.name, self.rows, self.columns = f"{part.name}.weight", part.rows, columns
        self.published_shape = (part.out_features, in_features)
        self.shape = (part.rows[1] - part.rows[0], columns[1] - columns[0])
        self.form: Form | None = None
        self.when_loaded: Callable[[], None] | None = None

    def finish(self, form: Form) -> None:
        """What `finalize` ends with."""
        self.form = form
        if self.when_loaded is not None:
            self.when_loaded()


class FloatPart(HeldPart):
    """A part that is published as floats. `finish` makes its form of them; without `finish` they
    stay floats in the model's dtype."""

    weight: nn.Parameter | None

    def __init__(
        self, part: Part, in_features: int, columns: Range, *, stored: torch.dtype | None, finish: Finish | None
    ) -> None:
        """`stored` is what the file has the tensor in, None if it lacks it."""
        super().__init__(part, in_features, columns)
        self._stored, self._finish = stored, finish
        self.weight = unallocated(*self.shape)

    def slots(self) -> list[Slot]:
        num_rows, num_columns = self.shape
        return [
            Slot(
                name=self.name,
                shape=self.published_shape,
                source=(self.rows, self.columns),
                parameter="weight",
                target=((0, num_rows), (0, num_columns)),
            )
        ]

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        """Floats that are soon given up are held in the file's own half precision, where the model's float32 would only
        make them larger."""
        if self._finish is not None and dtype == torch.float32 and self._stored in _HALVES:
            dtype = self._stored
        super().materialize(dtype=dtype, device=device)

    def num_bytes(self, dtype: torch.dtype) -> int:
        return super().num_bytes(dtype) if self._finish is None else self._finish.num_bytes(self.shape, dtype)

    def finalize(self) -> None:
        assert self.weight is not None
        weight, self.weight = self.weight.data, None
        self.finish(PlainWeight(weight=weight) if self._finish is None else self._finish(weight, self.name))


class HeldWeight(nn.Module):
    """x [T, in] -> x Wᵀ [T, out] over all parts, one below the other."""

    def __init__(self, parts: Sequence[HeldPart]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self._products: list[Product] = []
        for part in parts:
            part.when_loaded = partial(self._join_loaded, parts)

    def _join_loaded(self, parts: Sequence[HeldPart]) -> None:
        """Makes the products once the last part is loaded: layer by layer, so that each reuses the memory that the
        parts of the one before gave up."""
        forms = [part.form for part in parts if part.form is not None]
        if len(forms) == len(parts):
            for part in parts:
                part.form = None
            self._products = [form.product() for form in _joined(forms)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self._products) == 1:
            return self._products[0](x)
        return torch.cat([product(x) for product in self._products], dim=-1)


def _joined(forms: Sequence[Form]) -> list[Form]:
    """The fewest weights that stand for these, one below the other."""
    found: list[Form] = []
    for form in forms:
        joined = found[-1].above(form) if found else None
        if joined is None:
            found.append(form)
        else:
            found[-1] = joined
    return found


def merged(parts: Sequence[Part]) -> list[Part]:
    """Neighbours that continue each other in one published tensor as one part: what is published as one is quantized
    as one."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if last is not None and last.name == part.name and last.rows[1] == part.rows[0]:
            found[-1] = Part(name=part.name, out_features=part.out_features, rows=(last.rows[0], part.rows[1]))
        else:
            found.append(part)
    return found


_HALVES = (torch.float16, torch.bfloat16)
