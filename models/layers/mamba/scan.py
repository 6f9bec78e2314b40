"""The state-space recurrence of Mamba-2 (Dao & Gu 2024, "Transformers are SSMs", section 6), token by token or in
chunks, in float32.

For every head, with step size dt, decay rate a < 0 and B, C shared by the heads of a group:

    state = exp(dt * a) * state + dt * x ⊗ B        y = state · C

`step` does this once for many sequences. `scan` does it for many tokens of each: inside a chunk as a masked product
of tokens with tokens, across chunks through the state. Sequences are cut into chunks by `mamba_plan`; the skip D * x
and everything around the recurrence are the mixer's.

A state is kept with the channels of a group's heads side by side, so that all of them are one row of every product.

Letters: S sequences, C chunks of W tokens, M heads of P channels, G groups of F = M / G * P channels, N channels of a
state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """What `scan` gives: `y` [C, W, M, P], and the state `before` each chunk [C, G, N, F]."""

    y: torch.Tensor
    before: torch.Tensor


def step(
    state: torch.Tensor, x: torch.Tensor, b: torch.Tensor, c: torch.Tensor, dt: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    """One token of every sequence: x [S, M, P], b and c [S, G, N], dt [S, M], a [M] -> y [S, M, P].

    Updates `state` [S, G, N, F] in place. Where dt is 0 it stays as it is.
    """
    num_seqs, num_groups, width = b.shape
    rows = state.view(num_seqs * num_groups, width, -1)  # [S * G, N, F]
    kept = torch.exp(dt * a)[..., None].expand_as(x).reshape(rows.shape[0], 1, -1)  # [S * G, 1, F]
    drive = (x * dt[..., None]).view(rows.shape[0], 1, -1)
    rows.mul_(kept).addcmul_(b.reshape(-1, width, 1), drive)
    return torch.bmm(c.reshape(-1, 1, width), rows).view_as(x)


def scan(
    state: torch.Tensor,
    x: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    dt: torch.Tensor,
    a: torch.Tensor,
    *,
    sizes: Sequence[int],
    starts_empty: bool,
) -> Scanned:
    """Chunks of tokens: x [C, W, M, P], b and c [C, W, G, N], dt [C, W, M], a [M].

    The first chunks of all S sequences come first, then the second ones of those that have one, in the same order, and
    so on; `sizes` says how many of each. dt is 0 where a chunk has no token. `state` [S, G, N, F] is what stands before
    each sequence's first chunk (all 0 if `starts_empty`), and is left as what stands after its last.
    """
    b, c = b.transpose(1, 2), c.transpose(1, 2)  # [C, G, W, N]
    decays = dt * a  # [C, W, M] logarithms
    drive = x * dt[..., None]  # [C, W, M, P]

    reach = _reach(decays.transpose(1, 2))  # [C, M, from W, to W]
    to_end = reach[..., -1].transpose(1, 2)[..., None].clone()  # [C, W, M, 1]; reach is overwritten below
    scores = torch.matmul(b, c.transpose(2, 3)).triu_()  # [C, G, from W, to W]: a token reaches itself and later ones
    reach.unflatten(1, (b.shape[1], -1)).mul_(scores[:, :, None])
    y = torch.matmul(reach.transpose(2, 3), drive.transpose(1, 2)).transpose(1, 2)  # [C, W, M, P]

    made = torch.matmul(b.transpose(2, 3), _by_group(drive * to_end, b.shape[1]))  # [C, G, N, F] added by each chunk
    summed = decays.cumsum(1)  # [C, W, M]
    before = _pass_on(state, made, _kept(summed[:, -1], x.shape[3], b.shape[1]), sizes)  # [C, G, N, F]
    first = sizes[0] if starts_empty else 0  # earlier chunks have nothing before them
    if first == x.shape[0]:
        return Scanned(y=y, before=before)
    read = torch.matmul(c[first:], before[first:]).transpose(1, 2).reshape(y[first:].shape)  # [C', W, M, P]
    y[first:].addcmul_(read, torch.exp(summed[first:])[..., None])
    return Scanned(y=y, before=before)


def _reach(decays: torch.Tensor) -> torch.Tensor:
    """How much of what token s brings is left at token t of its chunk, from log decays [C, M, W] -> [C, M, s, t];
    1 where t <= s.

    Each is the exponential of a sum over the tokens between, summed as it stands: the difference of two sums from the
    chunk's beginning would lose the digits that both share.
    """
    width = decays.shape[-1]
    between = decays[..., None, :].expand(*decays.shape, width).triu(1)
    return between.cumsum_(-1).exp_()


def _by_group(x: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Heads [C, W, M, P] as rows of their groups [C, G, W, F]."""
    return x.view(*x.shape[:2], num_groups, -1).transpose(1, 2)


def _kept(decays: torch.Tensor, head_dim: int, num_groups: int) -> torch.Tensor:
    """What is left of each channel of a state after log decays [C, M] of its head: [C, G, 1, F]."""
    channels = torch.exp(decays)[..., None].expand(*decays.shape, head_dim)
    return channels.reshape(decays.shape[0], num_groups, 1, -1)


def _pass_on(state: torch.Tensor, made: torch.Tensor, kept: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The state before each chunk [C, G, N, F], from what the chunks add and keep of it; leaves the last in `state`."""
    before = torch.empty_like(made)
    start = 0
    for size in sizes:
        chunks = slice(start, start + size)
        before[chunks] = state[:size]
        state[:size].mul_(kept[chunks]).add_(made[chunks])
        start += size
    return before
