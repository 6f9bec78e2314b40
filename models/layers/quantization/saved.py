"""Weights that a checkpoint holds quantized already, as bitsandbytes writes them.

int8: `weight` [out, in] of codes, `SCB` [out] with the largest magnitude of each row, and `weight_format`, 0 for rows.
4 bits: `weight` [bytes, 1] of codes, packed in some type, `weight.absmax` with a scale a block, `weight.quant_map` with
the numbers that the codes stand for, and `weight.quant_state.bitsandbytes__nf4` (or fp4), JSON in bytes, which says
block size and shape; scales quantized in turn have `weight.nested_absmax` and `weight.nested_quant_map` besides.

A shard of an int8 tensor is read straight from the file. A 4-bit tensor is read whole, in its 4 bits, then cut.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch

from models.config.quantization import BLOCK_SIZES, DEFAULT_BLOCK_SIZE
from models.errors import CheckpointError
from models.layers.kernels.plain import SCALES_A_BLOCK, FourBitKind, four_bit_table
from models.layers.linear import Part
from models.layers.quantization.four_bit import FourBitWeight, QuantizedScales
from models.layers.quantization.held_weight import HeldPart
from models.layers.quantization.int8 import Int8Weight
from models.weights.loadable import FLOATS, Range, Slot, whole
from models.weights.weights import Checkpoint

_STORAGE = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_ROW_FORMAT = 0


def is_saved_quantized(name: str, checkpoint: Checkpoint) -> bool:
    """Whether the files hold the weight of the linear layer `name` quantized, or any tensor that goes with that."""
    tensors, weight = checkpoint.tensors, f"{name}.weight"
    companions = (
        f"{name}.SCB",
        f"{weight}.absmax",
        f"{weight}.quant_map",
        _state(weight, "nf4"),
        _state(weight, "fp4"),
    )
    is_integer = weight in tensors and tensors[weight].dtype not in FLOATS
    return is_integer or any(companion in tensors for companion in companions)


def _state(weight: str, kind: str) -> str:
    return f"{weight}.quant_state.bitsandbytes__{kind}"


class SavedInt8Part(HeldPart):
    """Codes and scales of one published tensor."""

    codes: torch.Tensor
    absmax: torch.Tensor
    weight_format: torch.Tensor

    def __init__(
        self, part: Part, in_features: int, columns: Range, *, checkpoint: Checkpoint, threshold: float
    ) -> None:
        super().__init__(part, in_features, columns)
        self._threshold = threshold
        self._format_name = f"{part.name}.weight_format" if f"{part.name}.weight_format" in checkpoint.tensors else None
        self._scales_name = f"{part.name}.SCB"
        _declare(self, "codes", self.shape, torch.int8)
        _declare(self, "absmax", self.shape[:1], torch.float32)
        _declare(self, "weight_format", (), torch.uint8)

    def slots(self) -> list[Slot]:
        out_features = self.published_shape[0]
        slots = [
            Slot(
                name=self.name,
                shape=self.published_shape,
                source=(self.rows, self.columns),
                parameter="codes",
                target=whole(self.shape),
                stored=("I8",),
            ),
            Slot(
                name=self._scales_name,
                shape=(out_features,),
                source=(self.rows,),
                parameter="absmax",
                target=whole(self.shape[:1]),
            ),
        ]
        if self._format_name is not None:
            slots.append(_whole_slot(self._format_name, (), "weight_format", "U8", "I8"))
        return slots

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        del dtype
        _allocate(self, device)

    def num_bytes(self, dtype: torch.dtype) -> int:
        del dtype
        return self.codes.nbytes + self.absmax.nbytes

    def finalize(self) -> None:
        if self.weight_format.item() != _ROW_FORMAT:
            raise CheckpointError(
                f"{self._format_name} is {self.weight_format.item()}; only {_ROW_FORMAT} (by rows) can be read: save the "
                "checkpoint again with a newer bitsandbytes"
            )
        weight = Int8Weight(codes=self.codes, absmax=self.absmax, threshold=self._threshold)
        _release(self)
        self.finish(weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What the JSON of a 4-bit tensor says; `offset` is None for plain scales."""

    block_size: int
    offset: float | None


class SavedFourBitPart(HeldPart):
    """Codes and scales of one published tensor."""

    packed: torch.Tensor
    scales: torch.Tensor
    table: torch.Tensor
    nested_absmax: torch.Tensor
    nested_table: torch.Tensor
    state: torch.Tensor

    def __init__(
        self,
        part: Part,
        in_features: int,
        columns: Range,
        *,
        checkpoint: Checkpoint,
        kind: FourBitKind,
        double: bool,
        compute_dtype: torch.dtype,
    ) -> None:
        """`double` says whether the scales are quantized in turn where the checkpoint lacks the tensor that says it.

        Raises:
            CheckpointError: that tensor cannot be understood, or contradicts the configuration.
        """
        super().__init__(part, in_features, columns)
        self._kind, self._compute_dtype = kind, compute_dtype
        self._state_name = _state(self.name, kind)
        self._state = self._read_state(checkpoint, double=double)
        stored = checkpoint.tensors.get(self.name)
        self._storage = stored.dtype if stored is not None and stored.dtype in _STORAGE else "U8"
        num_weights = math.prod(self.published_shape)
        blocks = -(-num_weights // self._state.block_size)
        storage = _STORAGE[self._storage]
        state = checkpoint.tensors.get(self._state_name)
        _declare(self, "packed", (-(-num_weights // (2 * storage.itemsize)), 1), storage)
        _declare(self, "scales", (blocks,), torch.float32 if self._state.offset is None else torch.uint8)
        _declare(self, "table", (16,), torch.float32)
        _declare(self, "state", (1,) if state is None else state.shape, torch.uint8)
        if self._state.offset is not None:
            _declare(self, "nested_absmax", (-(-blocks // SCALES_A_BLOCK),), torch.float32)
            _declare(self, "nested_table", (SCALES_A_BLOCK,), torch.float32)

    def slots(self) -> list[Slot]:
        scales = FLOATS if self._state.offset is None else ("U8",)
        wanted = [
            (self.name, "packed", (self._storage,)),
            (f"{self.name}.absmax", "scales", scales),
            (f"{self.name}.quant_map", "table", FLOATS),
            (self._state_name, "state", ("U8",)),
        ]
        if self._state.offset is not None:
            wanted += [
                (f"{self.name}.nested_absmax", "nested_absmax", FLOATS),
                (f"{self.name}.nested_quant_map", "nested_table", FLOATS),
            ]
        return [
            _whole_slot(name, tuple(self.get_buffer(buffer).shape), buffer, *stored) for name, buffer, stored in wanted
        ]

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        del dtype
        _allocate(self, device)

    def num_bytes(self, dtype: torch.dtype) -> int:
        """The rank's share of the tensors; the table and the JSON are not kept."""
        del dtype
        share = math.prod(self.shape) / math.prod(self.published_shape)
        kept = [buffer.nbytes for name, buffer in self.named_buffers() if name not in ("table", "state")]
        return round(share * sum(kept))

    def finalize(self) -> None:
        if not torch.equal(self.table, four_bit_table(self._kind, self.table.device)):
            raise CheckpointError(
                f"{self.name}.quant_map is not bitsandbytes' table of {self._kind} codes; save the checkpoint again with it"
            )
        weight = FourBitWeight(
            kind=self._kind,
            packed=self.packed.view(-1).view(torch.uint8),
            scales=self._finished_scales(),
            block_size=self._state.block_size,
            shape=self.published_shape,
            compute_dtype=self._compute_dtype,
        )
        _release(self)
        self.finish(weight.part(self.rows, self.columns))

    def _finished_scales(self) -> torch.Tensor | QuantizedScales:
        if self._state.offset is None:
            return self.scales
        return QuantizedScales(
            codes=self.scales,
            absmax=self.nested_absmax,
            table=self.nested_table,
            offset=torch.tensor(self._state.offset, dtype=torch.float32, device=self.scales.device),
        )

    def _read_state(self, checkpoint: Checkpoint, *, double: bool) -> _State:
        """The JSON, or what is usual where it is missing, which the loader reports."""
        stored = checkpoint.tensors.get(self._state_name)
        if stored is None:
            return _State(block_size=DEFAULT_BLOCK_SIZE, offset=0.0 if double else None)
        try:
            state: Any = json.loads(bytes(checkpoint.read(self._state_name, whole(stored.shape)).tolist()))
            is_nested = "nested_offset" in state
            offset = float(state["nested_offset"]) if is_nested else None
            facts = (state["quant_type"], tuple(state["shape"]), state["blocksize"] in BLOCK_SIZES)
            expected = (self._kind, self.published_shape, True)
            is_usual = facts == expected and (not is_nested or state["nested_blocksize"] == SCALES_A_BLOCK)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self._state_name} cannot be understood ({error!r}); download it again") from error
        if not is_usual or (offset is not None and not math.isfinite(offset)):
            raise CheckpointError(
                f"{self._state_name} says {state}; it must be for {self._kind} weights of shape "
                f"{list(self.published_shape)}, in blocks of {', '.join(map(str, BLOCK_SIZES))}, with scales in blocks of "
                f"{SCALES_A_BLOCK} if nested"
            )
        return _State(block_size=state["blocksize"], offset=offset)


def _whole_slot(name: str, shape: tuple[int, ...], buffer: str, *stored: str) -> Slot:
    return Slot(name=name, shape=shape, source=whole(shape), parameter=buffer, target=whole(shape), stored=stored)


def _declare(part: HeldPart, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """A buffer without storage."""
    part.register_buffer(name, torch.empty(shape, dtype=dtype, device="meta"), persistent=False)


def _allocate(part: HeldPart, device: torch.device) -> None:
    """Gives every buffer storage, zeroed."""
    for name, buffer in list(part.named_buffers()):
        setattr(part, name, torch.zeros(buffer.shape, dtype=buffer.dtype, device=device))


def _release(part: HeldPart) -> None:
    """Lets go of what was loaded; the form has it now."""
    for name, _ in list(part.named_buffers()):
        delattr(part, name)
