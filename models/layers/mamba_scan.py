"""The state-space recurrence of Mamba-2 (Dao & Gu 2024, "Transformers are SSMs", section 6), token by token or in
chunks, in float32.

For every head, with step size dt, decay rate a < 0 and B, C shared by the heads of a group:

    state = exp(dt * a) * state + dt * x ⊗ B        y = state · C

`step` does this once for many sequences. `scan` does it for many tokens of each: inside a chunk as a masked product
of tokens with tokens, across chunks through the state. Sequences are cut into chunks by `mamba_plan`; the skip D * x
and everything around the recurrence are the mixer's.

Letters: S sequences, C chunks of W tokens, M heads of P channels, G groups, N channels of a state.
"""

from collections.abc import Sequence

import torch


def step(
    state: torch.Tensor, x: torch.Tensor, b: torch.Tensor, c: torch.Tensor, dt: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    """One token of every sequence: x [S, M, P], b and c [S, G, N], dt [S, M], a [M] -> y [S, M, P].

    Updates `state` [S, M, P, N] in place.
    """
    num_seqs, num_groups, width = b.shape
    state.mul_(torch.exp(dt * a)[..., None, None])
    by_group = state.view(num_seqs * num_groups, -1, width)  # [S * G, M/G * P, N]
    drive = (x * dt[..., None]).view(num_seqs * num_groups, -1, 1)
    by_group.baddbmm_(drive, b.reshape(-1, 1, width))
    return torch.bmm(by_group, c.reshape(-1, width, 1)).view_as(x)


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
) -> torch.Tensor:
    """Chunks of tokens: x [C, W, M, P], b and c [C, W, G, N], dt [C, W, M], a [M] -> y [C, W, M, P], a view.

    The first chunks of all S sequences come first, then the second ones of those that have one, in the same order, and
    so on; `sizes` says how many of each. dt is 0 where a chunk has no token. `state` [S, M, P, N] is what stands before
    each sequence's first chunk (all 0 if `starts_empty`), and is left as what stands after its last.
    """
    num_chunks, _, num_heads, _ = x.shape
    num_groups = b.shape[2]
    decays = (dt * a).transpose(1, 2)  # [C, M, W] logarithms
    drive = torch.empty(num_chunks, num_heads, *x.shape[1::2], device=x.device)  # [C, M, W, P]
    torch.mul(x.transpose(1, 2), dt.transpose(1, 2)[..., None], out=drive)
    b, c = b.transpose(1, 2), c.transpose(1, 2)  # [C, G, W, N]

    reach = _reach(decays)  # [C, M, from W, to W]
    to_end = reach[..., -1:].clone()  # [C, M, W, 1]
    scores = torch.matmul(b, c.transpose(2, 3)).triu_()  # [C, G, from W, to W]: a token reaches itself and later ones
    reach.unflatten(1, (num_groups, -1)).mul_(scores[:, :, None])
    y = torch.matmul(reach.transpose(2, 3), drive)  # [C, M, W, P]

    made = torch.matmul(drive.transpose(2, 3), _by_head(b, to_end))  # [C, M, P, N] what each chunk adds to the state
    summed = decays.cumsum(2)  # [C, M, W]
    before = _pass_on(state, made, torch.exp(summed[..., -1, None, None]), sizes)  # [C, M, P, N]
    first = sizes[0] if starts_empty else 0  # earlier chunks have nothing before them
    if first < num_chunks:
        read = _by_head(c[first:], torch.exp(summed[first:, :, :, None]))
        y[first:] += torch.matmul(read, before[first:].transpose(2, 3))
    return y.transpose(1, 2)


def _reach(decays: torch.Tensor) -> torch.Tensor:
    """How much of what token s brings is left at token t of its chunk, from log decays [C, M, W] -> [C, M, s, t];
    1 where t <= s.

    Each is the exponential of a sum over the tokens between, summed as it stands: the difference of two sums from the
    chunk's beginning would lose the digits that both share.
    """
    width = decays.shape[-1]
    between = decays[..., None, :].expand(*decays.shape, width).triu(1)
    return between.cumsum(-1).exp_()


def _by_head(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A group's x [C, G, W, N] for each of its heads, times the head's weights [C, M, W, 1]: [C, M, W, N]."""
    weighted: torch.Tensor = x[:, :, None] * weights.unflatten(1, (x.shape[1], -1))  # [C, G, M/G, W, N]
    return weighted.flatten(1, 2)


def _pass_on(state: torch.Tensor, made: torch.Tensor, kept: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The state before each chunk [C, M, P, N], from what the chunks add and keep of it; leaves the last in `state`."""
    before = torch.empty_like(made)
    start = 0
    for size in sizes:
        chunks = slice(start, start + size)
        before[chunks] = state[:size]
        state[:size].mul_(kept[chunks]).add_(made[chunks])
        start += size
    return before
