"""Which linear layers of a network are held quantized, and how: the one place that joins layers and quantization.

Every published tensor is quantized by itself, since blocks and the scales of scales run through the whole of it; a
layer that fuses several holds them as parts of one weight.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.config.quantization import DEFAULT_BLOCK_SIZE, DEFAULT_INT8_THRESHOLD, QuantizationConfig
from models.layers.kernels.products import computed_dtype
from models.layers.linear import Linear, Part
from models.layers.quantization.four_bit import FourBitQuantizer
from models.layers.quantization.held_weight import FloatPart, HeldPart, HeldWeight, merged
from models.layers.quantization.int8 import Int8Quantizer
from models.layers.quantization.saved import SavedFourBitPart, SavedInt8Part, is_saved_quantized
from models.weights.weights import Checkpoint

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How the weights of one checkpoint are held. `is_saved`: its files are quantized already, and show which tensors
    are; else those are quantized that `config` does not skip."""

    config: QuantizationConfig
    checkpoint: Checkpoint
    is_saved: bool
    compute_dtype: torch.dtype

    @classmethod
    def choose(
        cls,
        config: QuantizationConfig,
        checkpoint: Checkpoint,
        *,
        is_saved: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "Quantization":
        """`dtype` is the model's; a CPU that cannot multiply the compute dtype computes in float32."""
        wanted = dtype if config.compute_dtype is None else _DTYPES[config.compute_dtype]
        compute_dtype = computed_dtype(wanted) if device.type == "cpu" else wanted
        return cls(config=config, checkpoint=checkpoint, is_saved=is_saved, compute_dtype=compute_dtype)

    def concerns(self, part: Part) -> bool:
        """Whether this part's weight is held quantized."""
        if self.is_saved:
            return is_saved_quantized(part.name, self.checkpoint)
        stored = self.checkpoint.tensors.get(f"{part.name}.weight")
        published = part.name if stored is None else stored.name.removesuffix(".weight")
        return not self.config.skips(published)

    def part(self, part: Part, linear: Linear) -> HeldPart:
        """The part of a layer's weight, ready to be loaded."""
        place = (part, linear.in_features, linear.columns)
        if self.is_saved and self.concerns(part):
            return self._saved_part(*place)
        stored = self.checkpoint.tensors.get(f"{part.name}.weight")
        return FloatPart(
            *place,
            stored=None if stored is None else _FLOATS.get(stored.dtype),
            finish=self._quantizer() if self.concerns(part) else None,
        )

    def _saved_part(self, part: Part, in_features: int, columns: tuple[int, int]) -> HeldPart:
        method = self.config.method
        if method == "int8":
            return SavedInt8Part(part, in_features, columns, checkpoint=self.checkpoint, threshold=self._threshold())
        return SavedFourBitPart(
            part,
            in_features,
            columns,
            checkpoint=self.checkpoint,
            kind=method,
            double=self.config.double_quantization or False,
            compute_dtype=self.compute_dtype,
        )

    def _quantizer(self) -> Int8Quantizer | FourBitQuantizer:
        config = self.config
        if config.method == "int8":
            return Int8Quantizer(threshold=self._threshold())
        return FourBitQuantizer(
            kind=config.method,
            block_size=config.block_size or DEFAULT_BLOCK_SIZE,
            double=config.double_quantization or False,
            compute_dtype=self.compute_dtype,
        )

    def _threshold(self) -> float:
        given = self.config.int8_threshold
        return DEFAULT_INT8_THRESHOLD if given is None else given


def hold_quantized(model: nn.Module, quantization: Quantization) -> None:
    """Gives every linear layer that it concerns a weight to be loaded quantized. Call before loading.

    Raises:
        CheckpointError: a quantized tensor of the files cannot be understood.
    """
    for linear in [module for module in model.modules() if isinstance(module, Linear)]:
        parts = merged(linear.parts)
        if linear.weight is not None and any(quantization.concerns(part) for part in parts):
            linear.hold(HeldWeight([quantization.part(part, linear) for part in parts]))
