"""The Mamba-2 mixer against one token at a time, whole and in shards, in one step and in many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from models.config.types import DtClamp, MambaConfig
from models.errors import ConfigError
from models.layers.attention.attention import Layout
from models.layers.mamba.mixer import Mamba2Mixer, MixerShare
from models.layers.mamba.plan import plan
from models.layers.mamba.scan import scan, step
from models.layers.state import StateCache
from models.parallel.tensor_parallel import SINGLE, TensorParallel
from models.weights.weights import Checkpoint
from tests.helpers.models.ranks import CPU, loaded, on_ranks, write_checkpoint

HIDDEN = 24
CONFIG = MambaConfig(
    num_heads=8,
    head_dim=6,
    num_groups=2,
    state_size=5,
    conv_width=4,
    dt_min=0.3,
    dt_clamp="prefill",
    chunk_size=8,
    bias=False,
)
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Share:
    """What a sequence computes in one step: its tokens from `start` to `stop`."""

    sequence: int
    start: int
    stop: int


def tensors_of(config: MambaConfig, seed: int = 0) -> Tensors:
    """Random weights under their published names."""
    generator = torch.Generator().manual_seed(seed)
    channels = config.inner_size + 2 * config.num_groups * config.state_size
    shapes = {
        "in_proj.weight": (config.inner_size + channels + config.num_heads, HIDDEN),
        "conv1d.weight": (channels, 1, config.conv_width),
        "conv1d.bias": (channels,),
        "dt_bias": (config.num_heads,),
        "A_log": (config.num_heads,),
        "D": (config.num_heads,),
        "norm.weight": (config.inner_size,),
        "out_proj.weight": (HIDDEN, config.inner_size),
    }
    if config.bias:
        shapes |= {"in_proj.bias": shapes["in_proj.weight"][:1], "out_proj.bias": (HIDDEN,)}
    tensors = {f"m.{name}": torch.randn(shape, generator=generator) * 0.5 for name, shape in shapes.items()}
    tensors["m.dt_bias"] -= 1.0
    return tensors


def inputs(lengths: Sequence[int], seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, HIDDEN, generator=generator) for length in lengths]


def recurrence(config: MambaConfig, tensors: Tensors, x: torch.Tensor, is_floored: Sequence[bool]) -> torch.Tensor:
    """The mixer in float64, one token at a time, as the paper's recurrence has it."""
    w = {name.removeprefix("m."): tensor.double() for name, tensor in tensors.items()}
    width, num_groups, inner = config.state_size, config.num_groups, config.inner_size
    per_group = config.num_heads // num_groups
    state = torch.zeros(config.num_heads, config.head_dim, width, dtype=torch.float64)
    window = torch.zeros(config.conv_width, w["conv1d.bias"].shape[0], dtype=torch.float64)
    rows = []
    for token, floored in zip(x.double(), is_floored, strict=True):
        projected = F.linear(token, w["in_proj.weight"], w.get("in_proj.bias"))
        z, xbc, dt = projected.split([inner, inner + 2 * num_groups * width, config.num_heads])
        window = torch.cat([window[1:], xbc[None]])
        mixed = F.silu((window * w["conv1d.weight"][:, 0].T).sum(0) + w["conv1d.bias"])
        heads, b, c = mixed.split([inner, num_groups * width, num_groups * width])
        dt = F.softplus(dt + w["dt_bias"])
        if floored:
            dt = dt.clamp(min=config.dt_min)
        y = torch.empty(config.num_heads, config.head_dim, dtype=torch.float64)
        for head in range(config.num_heads):
            group = slice(head // per_group * width, (head // per_group + 1) * width)
            channel = heads[head * config.head_dim : (head + 1) * config.head_dim]
            state[head] *= torch.exp(-torch.exp(w["A_log"][head]) * dt[head])
            state[head] += dt[head] * channel[:, None] * b[group]
            y[head] = state[head] @ c[group] + w["D"][head] * channel
        gated = (y.flatten() * F.silu(z)).view(num_groups, -1)
        normed = gated / torch.sqrt(gated.square().mean(-1, keepdim=True) + 1e-5)
        rows.append(F.linear(normed.flatten() * w["norm.weight"], w["out_proj.weight"], w.get("out_proj.bias")))
    return torch.stack(rows).float()


def make(config: MambaConfig, checkpoint: Checkpoint, tp: TensorParallel = SINGLE) -> Mamba2Mixer:
    mixer = loaded(Mamba2Mixer("m", HIDDEN, MixerShare.of(config, tp), tp), checkpoint)
    assert isinstance(mixer, Mamba2Mixer)
    return mixer


def whole(mixer: Mamba2Mixer, sequences: Sequence[torch.Tensor], clamp: DtClamp = "prefill") -> list[torch.Tensor]:
    """All sequences in one step, without states."""
    counts = np.array([x.shape[0] for x in sequences])
    step_plan = plan(Layout(counts=counts, starts=np.zeros_like(counts)), replace(mixer.config, dt_clamp=clamp), CPU)
    return list(mixer(torch.cat(list(sequences)), None, step_plan).split(counts.tolist()))


def in_steps(
    mixer: Mamba2Mixer,
    sequences: Sequence[torch.Tensor],
    steps: Sequence[Sequence[Share]],
    *,
    num_given: Sequence[int] | None = None,
    clamp: DtClamp = "prefill",
) -> list[torch.Tensor]:
    """The same with states: every step computes some shares, single tokens that continue first. Slots are in reverse
    and hold garbage at the beginning."""
    num_slots = len(sequences) + 2
    dtype = sequences[0].dtype
    state = StateCache.allocate(mixer.state_spec, num_slots=num_slots, dtype=dtype, device=CPU)
    state.conv.fill_(torch.nan)
    state.scan.fill_(torch.inf)
    given_by = num_given or [x.shape[0] for x in sequences]
    found: list[list[torch.Tensor]] = [[] for _ in sequences]
    for shares in steps:
        ordered = sorted(shares, key=lambda share: not (share.stop - share.start == 1 and share.start > 0))
        counts = np.array([share.stop - share.start for share in ordered])
        layout = Layout(
            counts=counts,
            starts=np.array([share.start for share in ordered]),
            tables=np.zeros((len(ordered), 1), dtype=np.int64),
            slots=np.array([num_slots - 1 - share.sequence for share in ordered]),
            num_given=np.array([given_by[share.sequence] for share in ordered]),
        )
        x = torch.cat([sequences[share.sequence][share.start : share.stop] for share in ordered])
        out = mixer(x, state, plan(layout, replace(mixer.config, dt_clamp=clamp), CPU)).split(counts.tolist())
        for share, part in zip(ordered, out, strict=True):
            found[share.sequence].append(part)
    return [torch.cat(parts) for parts in found]


def assert_alike(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


SHAPES = {
    "two groups": CONFIG,
    "one group": replace(CONFIG, num_groups=1),
    "a group a head": replace(CONFIG, num_groups=8),
    "biases": replace(CONFIG, bias=True),
    "two taps": replace(CONFIG, conv_width=2),
    "one tap": replace(CONFIG, conv_width=1),
    "chunks of one": replace(CONFIG, chunk_size=1),
    "chunks of five": replace(CONFIG, chunk_size=5),
    "chunks of 256": replace(CONFIG, chunk_size=256),
}
LENGTHS = (1, 2, 3, 8, 9, 17, 40, 130)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_packed_step_computes_the_recurrence_of_each_sequence(shape: str, tmp_path: Path) -> None:
    config, sequences = SHAPES[shape], inputs(LENGTHS)
    tensors = tensors_of(config)
    mixer = make(config, write_checkpoint(tmp_path, tensors))
    expected = [recurrence(config, tensors, x, [True] * x.shape[0]) for x in sequences]
    assert_alike(whole(mixer, sequences), expected)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_tokens_one_by_one_give_what_they_give_at_once(shape: str, tmp_path: Path) -> None:
    config, sequences = SHAPES[shape], inputs((5, 12, 9))
    mixer = make(config, write_checkpoint(tmp_path, tensors_of(config)))
    steps = [
        [Share(index, place, place + 1) for index, x in enumerate(sequences) if place < x.shape[0]]
        for place in range(12)
    ]
    assert_alike(in_steps(mixer, sequences, steps), whole(mixer, sequences))


@settings(max_examples=40, deadline=None)
@given(
    chunk_size=st.sampled_from([1, 2, 3, 4, 7, 64]),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_however_sequences_are_cut_into_steps_they_give_the_same(
    chunk_size: int, lengths: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config, sequences = replace(CONFIG, chunk_size=chunk_size), inputs(lengths)
    draws = np.random.default_rng(seed)
    mixer = make(config, write_checkpoint(tmp_path_factory.mktemp("m"), tensors_of(config)))
    steps: list[list[Share]] = []
    places = [0] * len(sequences)
    while any(place < x.shape[0] for place, x in zip(places, sequences, strict=True)):
        shares = []
        for index, x in enumerate(sequences):
            count = min(int(draws.integers(0, 12)), x.shape[0] - places[index])
            if count:
                shares.append(Share(index, places[index], places[index] + count))
                places[index] += count
        if shares:
            steps.append(shares)
    assert_alike(in_steps(mixer, sequences, steps), whole(mixer, sequences))


@pytest.mark.parametrize("clamp", ["none", "prefill", "both"])
def test_step_sizes_have_the_floor_that_the_policy_gives_them(clamp: DtClamp, tmp_path: Path) -> None:
    """Twelve tokens of which seven were given: prefilled in chunks of 3, 1 and 3, the generated ones decoded or, after a
    preemption, computed together with given ones."""
    tensors, sequences = tensors_of(CONFIG), inputs((12,))
    mixer = make(CONFIG, write_checkpoint(tmp_path, tensors))
    floored = {"none": [False] * 12, "prefill": [True] * 7 + [False] * 5, "both": [True] * 12}[clamp]
    expected = recurrence(CONFIG, tensors, sequences[0], floored)
    decoded = [[Share(0, place, place + 1)] for place in range(7, 12)]
    undisturbed = [[Share(0, 0, 3)], [Share(0, 3, 4)], [Share(0, 4, 7)], *decoded]
    resumed = [[Share(0, 0, 5)], [Share(0, 5, 10)], [Share(0, 10, 11)], [Share(0, 11, 12)]]
    for steps in (undisturbed, resumed):
        assert_alike(in_steps(mixer, sequences, steps, num_given=[7], clamp=clamp), [expected])


def test_the_floor_shows(tmp_path: Path) -> None:
    tensors, [x] = tensors_of(CONFIG), inputs((12,))
    every, none, some = (recurrence(CONFIG, tensors, x, [True] * n + [False] * (12 - n)) for n in (12, 0, 7))
    assert (every - none).abs().max() > 1e-2
    assert (every - some).abs().max() > 1e-2


def test_sequences_without_given_tokens_counted_are_given_whole(tmp_path: Path) -> None:
    tensors, sequences = tensors_of(CONFIG), inputs((12,))
    mixer = make(CONFIG, write_checkpoint(tmp_path, tensors))
    policies: tuple[tuple[DtClamp, bool], ...] = (("none", False), ("prefill", True), ("both", True))
    for clamp, floored in policies:
        expected = recurrence(CONFIG, tensors, sequences[0], [floored] * 12)
        assert_alike(whole(mixer, sequences, clamp), [expected])


def test_an_overflow_of_one_sequence_does_not_reach_another(tmp_path: Path) -> None:
    mixer = make(CONFIG, write_checkpoint(tmp_path, tensors_of(CONFIG)))
    sequences = inputs((3, 20, 5, 1))
    broken = [torch.full_like(x, torch.inf) if index == 1 else x for index, x in enumerate(sequences)]
    steps = [
        [Share(0, 0, 2), Share(1, 0, 11), Share(2, 0, 4), Share(3, 0, 1)],
        [Share(0, 2, 3), Share(1, 11, 20), Share(2, 4, 5)],
    ]
    expected, found = in_steps(mixer, sequences, steps), in_steps(mixer, broken, steps)
    assert not found[1].isfinite().any()
    assert_alike([found[index] for index in (0, 2, 3)], [expected[index] for index in (0, 2, 3)])


def test_strong_decays_lose_no_digits() -> None:
    """A head that forgets at once among tokens that all matter: sums from the chunk's beginning would have lost the small
    ones long before its end."""
    generator = torch.Generator().manual_seed(0)
    x, b, c = (torch.randn(1, 64, 1, 4, generator=generator) for _ in range(3))
    dt = torch.full((1, 64, 1), 1e-3)
    dt[:, 8] = 3e6
    a = torch.tensor([-1.0])
    found = scan(torch.zeros(1, 1, 4, 4), x, b, c, dt, a, sizes=[1], starts_empty=True)
    state, expected = torch.zeros(1, 1, 4, 4, dtype=torch.float64), []
    for token in range(64):
        here = [part[:, token].double() for part in (x, b, c, dt)]
        expected.append(step(state, here[0], here[1], here[2], here[3], a.double()))
    torch.testing.assert_close(found.y[0, 9:, 0], torch.cat(expected)[9:, 0].float(), atol=1e-6, rtol=1e-4)


def test_bfloat16_differs_by_its_rounding(tmp_path: Path) -> None:
    """Projections and convolution inputs are rounded, what lies between them is not."""
    checkpoint, sequences = write_checkpoint(tmp_path, tensors_of(CONFIG)), inputs((1, 9, 20))
    steps = [
        [Share(0, 0, 1), Share(1, 0, 8), Share(2, 0, 13)],
        [Share(1, 8, 9), Share(2, 13, 20)],
    ]
    expected = whole(make(CONFIG, checkpoint), sequences)
    mixer = loaded(Mamba2Mixer("m", HIDDEN, MixerShare.of(CONFIG, SINGLE), SINGLE), checkpoint, torch.bfloat16)
    assert isinstance(mixer, Mamba2Mixer)
    found = in_steps(mixer, [x.bfloat16() for x in sequences], steps)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, atol=0.08, rtol=0.02)
    assert mixer.recurrence.a.dtype == torch.float32


def test_states_follow_their_formula(tmp_path: Path) -> None:
    mixer = make(CONFIG, write_checkpoint(tmp_path, tensors_of(CONFIG)))
    spec = mixer.state_spec
    assert (spec.num_groups, spec.state_size, spec.group_size) == (2, 5, 4 * 6)
    assert (spec.num_inputs, spec.num_channels) == (3, 8 * 6 + 2 * 2 * 5)
    assert spec.bytes_per_sequence(torch.bfloat16) == 4 * 8 * 6 * 5 + 2 * 3 * 68
    state = StateCache.allocate(spec, num_slots=3, dtype=torch.bfloat16, device=CPU)
    assert (state.conv.shape, state.conv.dtype) == ((3, 3, 68), torch.bfloat16)
    assert (state.scan.shape, state.scan.dtype) == ((3, 2, 5, 24), torch.float32)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("num_groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_the_shards_of_a_mixer_compute_what_the_whole_computes(
    size: int, num_groups: int, bias: bool, tmp_path: Path
) -> None:
    config = replace(CONFIG, num_groups=num_groups, bias=bias)
    checkpoint, sequences = write_checkpoint(tmp_path, tensors_of(config)), inputs((1, 9, 20))
    steps = [[Share(0, 0, 1), Share(1, 0, 8), Share(2, 0, 13)], [Share(1, 8, 9), Share(2, 13, 20)]]

    def run(tp: TensorParallel) -> list[torch.Tensor]:
        return in_steps(make(config, checkpoint, tp), sequences, steps)

    expected = in_steps(make(config, checkpoint), sequences, steps)
    for found in on_ranks(size, run):
        assert_alike(found, expected)


@pytest.mark.parametrize(("size", "num_groups"), [(2, 2), (2, 4), (4, 4)])
def test_the_slices_of_the_ranks_are_the_whole_when_each_has_its_groups(
    size: int, num_groups: int, tmp_path: Path
) -> None:
    config = replace(CONFIG, num_groups=num_groups)
    checkpoint = write_checkpoint(tmp_path, tensors_of(config))
    tensors = load_file(tmp_path / "model.safetensors")
    covered = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    for rank in range(size):
        tp = TensorParallel(rank=rank, size=size)
        mixer = Mamba2Mixer("m", HIDDEN, MixerShare.of(config, tp), tp)
        for layer in (mixer.in_proj, mixer.conv, mixer.recurrence, mixer.norm, mixer.out_proj):
            for slot in layer.slots():
                assert slot.shape == tuple(checkpoint.tensors[slot.name].shape)
                covered[slot.name][tuple(slice(*part) for part in slot.source)] += 1
    assert all((count == 1).all() for count in covered.values())


def test_ranks_share_a_group_by_the_heads_they_hold() -> None:
    shares = [MixerShare.of(CONFIG, TensorParallel(rank=rank, size=4)) for rank in range(4)]
    assert [share.heads for share in shares] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert [share.groups for share in shares] == [(0, 1), (0, 1), (1, 2), (1, 2)]
    assert shares[2].convolved == [(24, 36), (48 + 5, 48 + 10), (58 + 5, 58 + 10)]


@pytest.mark.parametrize(
    ("size", "num_groups", "message"),
    [
        (3, 1, "8 Mamba heads cannot be split over 3 shards"),
        (4, 8, None),
        (8, 2, None),
    ],
)
def test_heads_are_split_where_they_divide(size: int, num_groups: int, message: str | None) -> None:
    config, tp = replace(CONFIG, num_groups=num_groups), TensorParallel(rank=size - 1, size=size)
    if message is None:
        assert MixerShare.of(config, tp).heads[1] == 8
        return
    with pytest.raises(ConfigError, match=message):
        MixerShare.of(config, tp)


def test_groups_that_do_not_fit_the_ranks_are_refused() -> None:
    config = replace(CONFIG, num_heads=12, num_groups=3)
    with pytest.raises(ConfigError, match="3 groups of Mamba heads cannot be split over 2 shards"):
        MixerShare.of(config, TensorParallel(rank=0, size=2))
