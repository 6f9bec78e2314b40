"""States of recurrent layers: one of fixed size a sequence and call site, in the row of the sequence's slot.

They are the counterpart of the paged caches of attention: a layer lists a `StateSpec`, the engine allocates a
`StateCache` for it, and the layer reads and writes the rows that a step names.
"""

from dataclasses import dataclass

import torch

from models.layers.attention.attention import KvCache, KvSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class StateSpec:
    """One call site that keeps a state: a matrix of `state_size` by `group_size` in float32 for each of `num_groups`
    groups of heads, and the last `num_inputs` inputs of a convolution over `num_channels` channels in the model's
    dtype. The numbers are this rank's."""

    num_groups: int
    state_size: int
    group_size: int
    num_inputs: int
    num_channels: int

    def bytes_per_sequence(self, dtype: torch.dtype) -> int:
        """Bytes of one sequence's state at this call site, however long the sequence is."""
        scan = self.num_groups * self.state_size * self.group_size * torch.float32.itemsize
        return scan + self.num_inputs * self.num_channels * dtype.itemsize


@dataclass(frozen=True, kw_only=True, slots=True)
class StateCache:
    """The states of one call site, one row per slot: `conv` [slots, num_inputs, num_channels] in
    the model's dtype, `scan` [slots, num_groups, state_size, group_size] in float32.

    A row is as its last owner left it; a sequence that starts at its first token does not read it.
    """

    conv: torch.Tensor
    scan: torch.Tensor

    @classmethod
    def allocate(cls, spec: StateSpec, *, num_slots: int, dtype: torch.dtype, device: torch.device) -> "StateCache":
        """Rows for `num_slots` sequences, with whatever the memory holds."""
        conv = (num_slots, spec.num_inputs, spec.num_channels)
        scan = (num_slots, spec.num_groups, spec.state_size, spec.group_size)
        return cls(
            conv=torch.empty(conv, dtype=dtype, device=device),
            scan=torch.empty(scan, dtype=torch.float32, device=device),
        )

    def copy_rows(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copies whole states from slots to other slots, both [n]."""
        for rows in (self.conv, self.scan):
            rows.index_copy_(0, targets, rows.index_select(0, sources))


Spec = KvSpec | StateSpec
Cache = KvCache | StateCache
