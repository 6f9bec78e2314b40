"""The Mamba-2 mixer (Dao & Gu 2024) as Zamba2 uses it: one projection in, a causal convolution, the state-space
recurrence, a gated norm, one projection out.

A rank holds some of the heads, with their channels of every part. B and C belong to groups of heads: a rank holds the
groups of its heads, a copy of one where that group has heads on other ranks too. Step sizes, recurrence, states and
norm statistics are float32.

Letters: T packed tokens, S sequences, C chunks of W tokens, M heads of P channels, G groups of F channels, N channels
of a state; all but T are this rank's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from models.config.types import MambaConfig
from models.errors import ConfigError
from models.layers.linear import ColumnLinear, Part, RowLinear
from models.layers.mamba.plan import Chunks, Decodes, KeptChunks, MambaPlan
from models.layers.mamba.scan import scan, step
from models.layers.state import StateCache, StateSpec
from models.parallel.tensor_parallel import TensorParallel
from models.weights.loadable import Loadable, Range, Slot, unallocated

NORM_EPS = 1e-5  # a constant of the published class, whatever the configuration's rms_norm_eps


@dataclass(frozen=True, kw_only=True, slots=True)
class MixerShare:
    """The part of every mixer that one rank holds: `heads` [start, stop) and `groups` [start, stop).

    `is_group_split`: the one group here has heads on other ranks.
    """

    config: MambaConfig
    heads: Range
    groups: Range
    is_group_split: bool

    @classmethod
    def of(cls, config: MambaConfig, tp: TensorParallel) -> "MixerShare":
        """The equal share of one rank.

        Raises:
            ConfigError: heads or groups cannot be split over this number of ranks.
        """
        heads = tp.share(config.num_heads, "Mamba heads")
        if config.num_groups % tp.size and tp.size % config.num_groups:
            raise ConfigError(
                f"{config.num_groups} groups of Mamba heads cannot be split over {tp.size} shards; choose a tensor_parallel_size "
                f"that divides {config.num_groups} or is a multiple of it"
            )
        per_group = config.num_heads // config.num_groups
        groups = heads[0] // per_group, (heads[1] - 1) // per_group + 1
        return cls(config=config, heads=heads, groups=groups, is_group_split=tp.size > config.num_groups)

    @property
    def num_heads(self) -> int:
        return self.heads[1] - self.heads[0]

    @property
    def num_groups(self) -> int:
        return self.groups[1] - self.groups[0]

    @property
    def inner(self) -> Range:
        """The channels of this rank's heads, of all `inner_size`."""
        return self.heads[0] * self.config.head_dim, self.heads[1] * self.config.head_dim

    @property
    def convolved(self) -> list[Range]:
        """The channels of x, B and C, which stand one after the other, of all that are convolved."""
        width, inner_size = self.config.state_size, self.config.inner_size
        b = inner_size + self.groups[0] * width, inner_size + self.groups[1] * width
        shift = self.config.num_groups * width
        return [self.inner, b, (b[0] + shift, b[1] + shift)]

    @property
    def sizes(self) -> list[int]:
        """Numbers of channels of x, B and C here."""
        return [stop - start for start, stop in self.convolved]


class CausalConv(Loadable):
    """A convolution over time, each channel by itself, then SiLU, in float32:
    y[t] = silu(bias + sum of taps[k] * x[t - K + 1 + k])."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, name: str, share: MixerShare) -> None:
        super().__init__()
        self.name, self.channels = name, share.convolved
        config = share.config
        self.num_channels = config.inner_size + 2 * config.num_groups * config.state_size
        self.width = config.conv_width
        self.weight = unallocated(sum(share.sizes), 1, self.width)
        self.bias = unallocated(sum(share.sizes))
        self.taps = self.shift = torch.empty(0)  # [K, channels] and [channels]

    def slots(self) -> list[Slot]:
        slots: list[Slot] = []
        start = 0
        for source in self.channels:
            target = (start, start := start + source[1] - source[0])
            slots += [
                Slot(
                    name=f"{self.name}.weight",
                    shape=(self.num_channels, 1, self.width),
                    source=(source, (0, 1), (0, self.width)),
                    parameter="weight",
                    target=(target, (0, 1), (0, self.width)),
                ),
                Slot(
                    name=f"{self.name}.bias",
                    shape=(self.num_channels,),
                    source=(source,),
                    parameter="bias",
                    target=(target,),
                ),
            ]
        return slots

    def finalize(self) -> None:
        assert self.weight is not None
        assert self.bias is not None
        self.taps, self.shift = self.weight.data[:, 0].t().float().contiguous(), self.bias.data.float()
        self.weight = self.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs [n, K - 1 + W, channels] -> outputs [n, W, channels] of the last W."""
        x, num_outputs = x.float(), x.shape[1] - self.width + 1
        y = torch.addcmul(self.shift, x[:, :num_outputs], self.taps[0])
        for place in range(1, self.width):
            y.addcmul_(x[:, place : place + num_outputs], self.taps[place])
        return F.silu(y, inplace=True)


class Recurrence(Loadable):
    """The numbers of each head: `dt_bias`, `A_log` and `D`, kept in float32. `a` [M] is the decay rate."""

    dt_bias: nn.Parameter
    A_log: nn.Parameter
    D: nn.Parameter

    def __init__(self, name: str, share: MixerShare) -> None:
        super().__init__()
        self.name, self.heads, self.num_heads = name, share.heads, share.config.num_heads
        self.dt_bias, self.A_log, self.D = (unallocated(share.num_heads) for _ in range(3))
        self.a = torch.empty(0)

    def slots(self) -> list[Slot]:
        return [
            Slot(
                name=f"{self.name}.{parameter}",
                shape=(self.num_heads,),
                source=(self.heads,),
                parameter=parameter,
                target=((0, self.heads[1] - self.heads[0]),),
            )
            for parameter in ("dt_bias", "A_log", "D")
        ]

    def materialize(self, *, dtype: torch.dtype, device: torch.device) -> None:
        super().materialize(dtype=torch.promote_types(dtype, torch.float32), device=device)

    def finalize(self) -> None:
        self.a = -torch.exp(self.A_log.data)

    def step_sizes(self, dt: torch.Tensor, floor: torch.Tensor | None) -> torch.Tensor:
        """softplus(dt + bias) [T, M], at least `floor` [T, 1]."""
        sizes = F.softplus(dt.float() + self.dt_bias)
        return sizes if floor is None else torch.maximum(sizes, floor, out=sizes)


class GatedNorm(Loadable):
    """y * silu(z), normalised over each group's channels, times the weight: [T, M * P] -> [T, M * P] in z's dtype."""

    weight: nn.Parameter

    def __init__(self, name: str, share: MixerShare, tp: TensorParallel) -> None:
        super().__init__()
        self.name, self.share, self.tp = name, share, tp
        self.weight = unallocated(share.inner[1] - share.inner[0])

    def slots(self) -> list[Slot]:
        return [
            Slot(
                name=f"{self.name}.weight",
                shape=(self.share.config.inner_size,),
                source=(self.share.inner,),
                parameter="weight",
                target=((0, self.weight.shape[0]),),
            )
        ]

    def forward(self, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        gated: torch.Tensor = F.silu(z.float()).mul_(y)
        gated = gated.unflatten(1, (self.share.num_groups, -1))  # [T, G, channels]
        if self.share.is_group_split:
            gated = gated * torch.rsqrt(self._mean_square(gated) + NORM_EPS)
        else:
            gated = F.rms_norm(gated, gated.shape[-1:], None, NORM_EPS)
        return gated.flatten(1).to(z.dtype).mul_(self.weight)

    def _mean_square(self, gated: torch.Tensor) -> torch.Tensor:
        """Over all channels of the one group that is here in part [T, 1, 1]. Every rank adds to its own group's sum."""
        config = self.share.config
        sums = gated.new_zeros(gated.shape[0], config.num_groups)
        group = self.share.groups[0]
        sums[:, group] = gated.square().sum(-1)[:, 0]
        channels = config.inner_size // config.num_groups
        return self.tp.all_reduce(sums)[:, group, None, None] / channels


class Mamba2Mixer(nn.Module):
    """x [T, H] -> [T, H] for a packed step of tokens that decode and tokens that prefill."""

    def __init__(self, name: str, hidden_size: int, share: MixerShare, tp: TensorParallel) -> None:
        super().__init__()
        config = share.config
        self.share, self.config = share, config
        self.in_proj = ColumnLinear(_input_parts(f"{name}.in_proj", share), hidden_size, bias=config.bias)
        self.conv = CausalConv(f"{name}.conv1d", share)
        self.recurrence = Recurrence(name, share)
        self.norm = GatedNorm(f"{name}.norm", share, tp)
        self.out_proj = RowLinear(f"{name}.out_proj", config.inner_size, hidden_size, tp=tp, bias=config.bias)

    @property
    def state_spec(self) -> StateSpec:
        return StateSpec(
            num_groups=self.share.num_groups,
            state_size=self.config.state_size,
            group_size=self.share.sizes[0] // self.share.num_groups,
            num_inputs=self.config.conv_width - 1,
            num_channels=sum(self.share.sizes),
        )

    def forward(self, x: torch.Tensor, state: StateCache | None, plan: MambaPlan) -> torch.Tensor:
        """`state` None: every sequence starts here and none goes on. Mutates the rows of the step's slots."""
        inner, *groups = self.share.sizes
        z, xbc, dt = self.in_proj(x).split([inner, inner + sum(groups), self.share.num_heads], dim=-1)
        dt = self.recurrence.step_sizes(dt, plan.dt_floor)  # [T, M]
        parts = []
        if plan.decodes is not None:
            assert state is not None
            decoding = slice(plan.num_decodes)
            parts.append(self._decode(xbc[decoding], dt[decoding], state, plan.decodes))
        if plan.chunks is not None:
            parts.append(self._prefill(xbc, dt, state, plan.chunks))
        y = torch.cat(parts) if len(parts) > 1 else parts[0]  # [T, M * P] float32
        return self.out_proj(self.norm(y, z))  # type: ignore[no-any-return]

    def _decode(self, xbc: torch.Tensor, dt: torch.Tensor, state: StateCache, decodes: Decodes) -> torch.Tensor:
        """One token of each sequence [S, channels] -> [S, M * P]."""
        inputs = torch.cat([state.conv.index_select(0, decodes.slots), xbc[:, None]], dim=1)  # [S, K, channels]
        state.conv.index_copy_(0, decodes.slots, inputs[:, 1:])
        mixed = self.conv(inputs)[:, 0]  # [S, channels]
        if decodes.span is None:
            rows = state.scan.index_select(0, decodes.slots)
            y = self._step(rows, mixed, dt)
            state.scan.index_copy_(0, decodes.slots, rows)
            return y
        rows = state.scan[slice(*decodes.span)]  # in place
        if decodes.places is None:
            return self._step(rows, mixed, dt)
        mixed, dt = (
            part.new_zeros(rows.shape[0], part.shape[1]).index_copy_(0, decodes.places, part) for part in (mixed, dt)
        )
        return self._step(rows, mixed, dt).index_select(0, decodes.places)

    def _step(self, rows: torch.Tensor, mixed: torch.Tensor, dt: torch.Tensor) -> torch.Tensor:
        """Convolved channels [S, channels] and step sizes -> [S, M * P]; updates the states [S, G, N, F]."""
        x, b, c = self._heads(mixed)
        y = step(rows, x, b, c, dt, self.recurrence.a)
        return y.addcmul_(x, self.recurrence.D[:, None]).flatten(1)

    def _prefill(self, xbc: torch.Tensor, dt: torch.Tensor, state: StateCache | None, chunks: Chunks) -> torch.Tensor:
        """All tokens of the step, of which the chunks take theirs -> [T', M * P]."""
        inputs = xbc.index_select(0, chunks.rows)  # [C * (K - 1 + W), channels]
        self._insert_edges(inputs, state, chunks)
        mixed = self.conv(inputs.view(chunks.is_real.shape[0], -1, inputs.shape[1]))  # [C, W, channels]
        x, b, c = self._heads(mixed)
        dt = dt.index_select(0, chunks.tokens).view(*x.shape[:3]) * chunks.is_real  # [C, W, M]
        rows = self._states_before(state, chunks)
        scanned = scan(rows, x, b, c, dt, self.recurrence.a, sizes=chunks.sizes, starts_empty=chunks.starts_empty)
        if state is not None:
            assert chunks.slots is not None
            last = inputs.index_select(0, chunks.tails).view(chunks.sizes[0], *state.conv.shape[1:])
            state.conv.index_copy_(0, chunks.slots, last)
            state.scan.index_copy_(0, chunks.slots, rows)
            if chunks.kept is not None:
                _keep(state, chunks.kept, inputs.view(*mixed.shape[:1], -1, inputs.shape[1]), scanned.before)
        y = torch.addcmul(scanned.y, x, self.recurrence.D[:, None])
        return y.reshape(-1, self.share.sizes[0]).index_select(0, chunks.places)

    def _insert_edges(self, inputs: torch.Tensor, state: StateCache | None, chunks: Chunks) -> None:
        """Puts what the convolution kept, or zeros, before each sequence's first token."""
        if chunks.starts_empty:
            inputs.index_fill_(0, chunks.edges, 0.0)
            return
        assert state is not None
        assert chunks.slots is not None
        kept = state.conv.index_select(0, chunks.slots).masked_fill_(chunks.is_fresh[:, None, None], 0.0)
        inputs.index_copy_(0, chunks.edges, kept.flatten(0, 1))

    def _states_before(self, state: StateCache | None, chunks: Chunks) -> torch.Tensor:
        """A copy of the states of the step's prefill sequences [S, G, N, F]."""
        if chunks.starts_empty:
            spec = self.state_spec
            shape = (chunks.sizes[0], spec.num_groups, spec.state_size, spec.group_size)
            return torch.zeros(shape, device=chunks.rows.device)
        assert state is not None
        assert chunks.slots is not None
        rows = state.scan.index_select(0, chunks.slots)
        return rows.masked_fill_(chunks.is_fresh[:, None, None, None], 0.0)

    def _heads(self, xbc: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Convolved channels [..., channels] -> x [..., M, P], B and C [..., G, N], views."""
        x, b, c = xbc.split(self.share.sizes, dim=-1)
        groups = (self.share.num_groups, self.config.state_size)
        return x.unflatten(-1, (self.share.num_heads, -1)), b.unflatten(-1, groups), c.unflatten(-1, groups)


def _keep(state: StateCache, kept: KeptChunks, inputs: torch.Tensor, before: torch.Tensor) -> None:
    """Copies what stands before some chunks, of inputs [C, K - 1 + W, channels] and states [C, G,
    N, F], to their rows."""
    num_inputs = state.conv.shape[1]
    state.conv.index_copy_(0, kept.rows, inputs[:, :num_inputs].index_select(0, kept.chunks))
    state.scan.index_copy_(0, kept.rows, before.index_select(0, kept.chunks))


def _input_parts(name: str, share: MixerShare) -> list[Part]:
    """The rows of the projection: gate, then what is convolved, then step sizes."""
    config = share.config
    total = 2 * config.inner_size + 2 * config.num_groups * config.state_size + config.num_heads
    convolved = [(start + config.inner_size, stop + config.inner_size) for start, stop in share.convolved]
    steps = (total - config.num_heads + share.heads[0], total - config.num_heads + share.heads[1])
    return [Part(name=name, out_features=total, rows=rows) for rows in (share.inner, *convolved, steps)]
