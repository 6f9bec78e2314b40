"""From pooled hidden states to vectors: a checkpoint's projections, the first dimensions alone, length 1. On the CPU in float32."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from models.errors import CheckpointError
from models.tasks.embedding import EmbeddingConfig, Projection
from models.weights.loadable import FLOATS, whole
from models.weights.weights import Checkpoint

_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Projected:
    """A projection with its weights: W [out, in], b [out] or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(F.linear(x, self.weight, self.bias))  # [N, out]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vectors:
    """What a checkpoint does with pooled states."""

    embedding: EmbeddingConfig
    steps: Sequence[Callable[[torch.Tensor], torch.Tensor]]

    @classmethod
    def load(cls, folder: Path, embedding: EmbeddingConfig) -> "Vectors":
        """With the weights of its projections.

        Raises:
            CheckpointError: they are missing, misshapen or unreadable.
        """
        steps = [_unit if step == "normalize" else _projected(folder, step) for step in embedding.steps]
        return cls(embedding=embedding, steps=steps)

    @torch.no_grad()
    def of(self, pooled: torch.Tensor, *, normalize: bool, dimensions: int | None) -> torch.Tensor:
        """Pooled states [N, H] -> vectors [N, D]."""
        for step in self.steps:
            pooled = step(pooled)
        cut = pooled[:, :dimensions]
        return _unit(cut) if normalize else cut.contiguous()


def _unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


def _projected(folder: Path, projection: Projection) -> Projected:
    checkpoint = Checkpoint.open(folder / projection.folder)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (projection.out_features, projection.in_features)}
    if projection.has_bias:
        shapes["linear.bias"] = (projection.out_features,)
    for name, shape in shapes.items():
        found = checkpoint.tensors.get(name)
        if found is None or found.shape != shape or found.dtype not in FLOATS:
            has = "is absent" if found is None else f"is {found.dtype} of {list(found.shape)}"
            raise CheckpointError(
                f"{checkpoint.folder}: {name} {has}; it must be floating point of {list(shape)}; download it again"
            )
    read = {name: checkpoint.read(name, whole(shape)).float().clone() for name, shape in shapes.items()}
    return Projected(
        weight=read["linear.weight"], bias=read.get("linear.bias"), activation=_ACTIVATIONS[projection.activation]
    )
