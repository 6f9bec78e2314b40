"""One step of the Mamba-2 layers as tensors, the same for all of them: which slots decode, how prefill is cut into
chunks, and how small a step size may be.

Nothing is padded but chunks: projections and norms run over the packed tokens, and chunks of one width are gathered
from them for the convolution and the scan.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models.config.types import DtClamp, MambaConfig
from models.layers.attention.attention import IntArray, Layout
from models.weights.loadable import Range

MAX_CHUNK = 64  # tokens; a longer chunk multiplies more tokens with tokens, a shorter one makes more states

MAX_SPREAD = 2  # rows passed over for each decoding one; beyond it copying them out and back is cheaper


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptChunks:
    """The states before these of a step's chunks [k] are to be copied to these rows [k] of the
    states."""

    chunks: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """The prefill part of a step: C chunks of `width` tokens, each behind the `num_inputs` tokens
    before it that the convolution reads. Chunks stand in the order `mamba_scan.scan` wants.

    `rows` [C * (num_inputs + width)] are packed token numbers, a sequence's own first or last one
    where it has none; `edges` [S * num_inputs] the places there that come before a sequence's
    first token of the step, and `tails` as many that hold its last inputs. `tokens` [C * width]
    are the rows without what stands before each chunk, `is_real` [C, width, 1] is 0 where the
    chunk has no token. `places` [T'] says where in the chunks each packed prefill token is.
    `slots` [S] is None where no state is kept; `is_fresh` [S] marks sequences that have none yet.
    `kept` are chunks before which the state is wanted, beside that after each sequence's last.
    """

    width: int
    sizes: tuple[int, ...]
    rows: torch.Tensor
    edges: torch.Tensor
    tails: torch.Tensor
    tokens: torch.Tensor
    is_real: torch.Tensor
    places: torch.Tensor
    slots: torch.Tensor | None
    is_fresh: torch.Tensor
    starts_empty: bool
    kept: KeptChunks | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decodes:
    """The S sequences of a step that continue by one token, in `slots` [S].

    Where their slots lie close together, their states are updated where they are: `span` are the rows [start, stop)
    that hold them, and `places` [S] says which of these rows is whose; None if that is their own order. `span` None:
    they are far apart, and are copied out and back.
    """

    slots: torch.Tensor
    span: Range | None
    places: torch.Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MambaPlan:
    """The first `num_decodes` tokens continue a state by one each, the others are `chunks`. `dt_floor` [T, 1] is the
    smallest step size of each token, None: there is no floor."""

    num_decodes: int
    decodes: Decodes | None
    chunks: Chunks | None
    dt_floor: torch.Tensor | None


def chunk_width(config: MambaConfig) -> int:
    """Tokens of a chunk, where a step has so many of a sequence: what is computed in two parts
    that meet at a multiple of this is cut as what is computed whole."""
    return max(min(config.chunk_size, MAX_CHUNK), config.conv_width - 1)  # only a first chunk reads earlier inputs


def plan(layout: Layout, config: MambaConfig, device: torch.device) -> MambaPlan:
    """The tensors of one step."""
    num_decodes = layout.num_decodes
    chunks = None
    if num_decodes < layout.counts.size:
        chunks = _chunks(layout, num_decodes, config, device)
    decodes = None
    if num_decodes:
        assert layout.slots is not None
        decodes = _decodes(layout.slots[:num_decodes], device)
    floor = _floor(layout, config.dt_clamp, config.dt_min)
    return MambaPlan(
        num_decodes=num_decodes,
        decodes=decodes,
        chunks=chunks,
        dt_floor=None if floor is None else torch.from_numpy(floor[:, None]).to(device),
    )


def _decodes(slots: IntArray, device: torch.device) -> Decodes:
    first, stop = int(slots.min()), int(slots.max()) + 1
    is_close = stop - first <= MAX_SPREAD * slots.size
    places = None
    if is_close and (stop - first != slots.size or (np.diff(slots) != 1).any()):
        places = torch.from_numpy(slots - first).to(device)
    return Decodes(slots=torch.from_numpy(slots).to(device), span=(first, stop) if is_close else None, places=places)


def _floor(layout: Layout, clamp: DtClamp, dt_min: float) -> np.ndarray | None:
    """Whether a token was given decides under "prefill", not how it is computed: a sequence that is computed again
    after preemption has the states it had."""
    if clamp == "none":
        return None
    sequence = np.repeat(np.arange(layout.counts.size), layout.counts)
    if clamp == "both" or layout.num_given is None:
        return np.full(sequence.size, dt_min, dtype=np.float32)
    firsts = np.cumsum(layout.counts) - layout.counts
    position = np.arange(sequence.size) + (layout.starts - firsts)[sequence]
    is_given = position < layout.num_given[sequence]
    return np.where(is_given, np.float32(dt_min), np.float32(0.0)) if is_given.any() else None


def _chunks(layout: Layout, num_decodes: int, config: MambaConfig, device: torch.device) -> Chunks:
    num_inputs = config.conv_width - 1
    width = int(min(chunk_width(config), layout.counts[num_decodes:].max()))
    first, counts, members = _longest_first(layout, num_decodes, width)
    num_chunks = -(-counts // width)
    sizes = (num_chunks[:, None] > np.arange(num_chunks[0])).sum(0)
    offsets = np.cumsum(sizes) - sizes
    owner = np.concatenate([np.arange(size) for size in sizes])  # [C]
    begin = np.repeat(np.arange(sizes.size), sizes) * width
    position = begin[:, None] + np.arange(-num_inputs, width)  # [C, num_inputs + width] within the sequence's share
    rows = first[owner][:, None] + np.clip(position, 0, counts[owner][:, None] - 1)
    is_real = (position < counts[owner][:, None])[:, num_inputs:]
    places = np.empty(int(counts.sum()), dtype=np.int64)
    places[rows[:, num_inputs:][is_real] - num_decodes] = np.flatnonzero(is_real)
    last = offsets[num_chunks - 1] + np.arange(counts.size)
    num_last = counts - (num_chunks - 1) * width
    inputs, span = np.arange(num_inputs), num_inputs + width
    slots = None if layout.slots is None else layout.slots[members]
    is_fresh = layout.starts[members] == 0

    def on_device(numbers: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers).ravel()).to(device)

    return Chunks(
        width=width,
        sizes=tuple(sizes.tolist()),
        rows=on_device(rows),
        edges=on_device((np.arange(counts.size) * span)[:, None] + inputs),
        tails=on_device((last * span + num_last)[:, None] + inputs),
        tokens=on_device(rows[:, num_inputs:]),
        is_real=on_device(is_real.astype(np.float32)).view(-1, width, 1),
        places=on_device(places),
        slots=None if slots is None else on_device(slots),
        is_fresh=on_device(is_fresh),
        starts_empty=slots is None or bool(is_fresh.all()),
        kept=_kept(layout, members, offsets, width, device) if layout.kept else None,
    )


def _kept(layout: Layout, members: IntArray, offsets: IntArray, width: int, device: torch.device) -> KeptChunks:
    """`offsets` are the numbers of the first sequence's chunks, behind which the others' stand in
    their order."""
    sequences, tokens, rows = np.array(layout.kept, dtype=np.int64).T
    rank = np.empty(layout.counts.size, dtype=np.int64)
    rank[members] = np.arange(members.size)
    chunks = offsets[tokens // width] + rank[sequences]
    return KeptChunks(chunks=torch.from_numpy(chunks).to(device), rows=torch.from_numpy(rows.copy()).to(device))


def _longest_first(layout: Layout, num_decodes: int, width: int) -> tuple[IntArray, IntArray, IntArray]:
    """First packed token, count and number of each prefill sequence, those of most chunks first."""
    members = np.arange(num_decodes, layout.counts.size)
    num_chunks = -(-layout.counts[members] // width)
    members = members[np.argsort(-num_chunks, kind="stable")]
    firsts = np.cumsum(layout.counts) - layout.counts
    return firsts[members], layout.counts[members], members
