"""From logits to tokens: a request's rules (`ruled`), then temperature, top-k, top-p, min-p.

A draw is one uniform number from a counter-based generator keyed by (seed, position), put through the inverse of the
cumulative distribution. It depends neither on batch-mates nor on how often a row was computed before. Filters apply
in transformers' order: temperature, top-k, top-p, min-p.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from models.engine.sampling.ruled import PlacedRule, ruled
from models.engine.scheduling.plan import Admission
from models.engine.scheduling.request import SamplingParams

ARGMAX_RUN = 128
ROWS_AT_ONCE = 32  # of float64 probabilities over a whole vocabulary
MIN_TEMPERATURE = 1e-10  # below it a draw is the likeliest token
OVERFLOWED = -1e30  # stands for a logit that is not a number
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


_NO_TOKENS = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingRow:
    """How a slot's logits become tokens. `position` is the new token's place in the sequence; `tokens` [position] are those
    before it where the draw looks back at them."""

    params: SamplingParams
    seed: int
    rules: tuple[PlacedRule, ...] = ()
    stop_ids: tuple[int, ...] = ()
    num_prompt: int = 0
    position: int = 0
    tokens: torch.Tensor = _NO_TOKENS

    @classmethod
    def of(cls, admission: Admission, device: torch.device) -> "SamplingRow":
        """The row of a sequence that takes a slot."""
        return cls(
            params=admission.params,
            seed=admission.seed,
            rules=tuple(PlacedRule(rule=rule, tensors=rule.tensors(device)) for rule in admission.params.rules),
            stop_ids=admission.stop_ids,
            num_prompt=admission.num_prompt,
        )

    def at(self, position: int, tokens: torch.Tensor = _NO_TOKENS) -> "SamplingRow":
        """The same row, about to draw the token at `position`, after these."""
        return replace(self, position=position, tokens=tokens)


def is_plain_greedy(params: SamplingParams) -> bool:
    """Whether the likeliest token is all that is asked for."""
    return params.temperature == 0.0 and params.logprobs is None and not params.rules


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """Logits [R, V] -> token ids [R] int64."""
    if any(row.rules for row in rows):
        logits = ruled(logits, rows)
    return drawn(logits, rows)


def drawn(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """Logits [R, V], after all rules -> token ids [R] int64."""
    tokens = likeliest(logits)
    sampled = [index for index, row in enumerate(rows) if row.params.temperature > 0.0]
    filtered = [index for index in sampled if rows[index].params.top_k > 0 or rows[index].params.top_p < 1.0]
    plain = [index for index in sampled if not (rows[index].params.top_k > 0 or rows[index].params.top_p < 1.0)]
    for members, draw in ((plain, _draw_plain), (filtered, _draw_filtered)):
        for start in range(0, len(members), ROWS_AT_ONCE):
            part = members[start : start + ROWS_AT_ONCE]
            chosen = [rows[index] for index in part]
            where = torch.tensor(part, device=logits.device)
            tokens[where] = draw(logits.index_select(0, where).float(), chosen, uniform(chosen).to(logits.device))
    return tokens


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Logits [R, V] -> the id of each row's largest value, the first of equals [R].

    In two levels, because torch's argmax on the CPU is not vectorised and its maximum is: several times faster over
    a whole vocabulary.
    """
    num_rows, vocab_size = logits.shape
    padding = -vocab_size % ARGMAX_RUN
    runs = F.pad(logits, (0, padding), value=-torch.inf) if padding else logits
    runs = runs.view(num_rows, -1, ARGMAX_RUN)
    best = runs.amax(-1).argmax(-1)
    within = runs[torch.arange(num_rows, device=logits.device), best].argmax(-1)
    return best * ARGMAX_RUN + within


def uniform(rows: Sequence[SamplingRow]) -> torch.Tensor:
    """[R] float64 in [0, 1): SplitMix64 (Steele et al. 2014) of seed and position."""
    seeds = np.array([row.seed for row in rows], dtype=np.uint64)
    positions = np.array([row.position for row in rows], dtype=np.uint64)
    mixed = _mix(_mix(seeds) ^ (positions * _GOLDEN))
    return torch.from_numpy((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


def _draw_plain(logits: torch.Tensor, rows: Sequence[SamplingRow], draws: torch.Tensor) -> torch.Tensor:
    """Draws from the whole vocabulary, in its own order; no sort."""
    probabilities = _probabilities(logits, rows)
    return _invert(_above_min_p(probabilities, rows), draws)


def _draw_filtered(logits: torch.Tensor, rows: Sequence[SamplingRow], draws: torch.Tensor) -> torch.Tensor:
    """Draws from the likeliest tokens, likeliest first; tokens as likely as one another in the order of their ids."""
    ranked, order = torch.sort(_scaled(logits, rows), dim=-1, descending=True, stable=True)
    rank = torch.arange(ranked.shape[1], device=logits.device)
    top_k = _column([row.params.top_k or ranked.shape[1] for row in rows], ranked)
    ranked = ranked.masked_fill(rank >= top_k, -torch.inf)
    probabilities = torch.softmax(ranked.double(), dim=-1)
    before = probabilities.cumsum(-1) - probabilities
    top_p = _column([row.params.top_p for row in rows], probabilities)
    probabilities = probabilities.masked_fill((before >= top_p) & (rank > 0), 0.0)
    choice = _invert(_above_min_p(probabilities, rows), draws)
    return order.gather(1, choice[:, None])[:, 0]


def _scaled(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """Logits below their maximum, over the temperature: finite for any temperature, and for a row that overflowed."""
    logits = torch.nan_to_num(logits, nan=OVERFLOWED, neginf=-torch.inf)
    temperature = _column([max(row.params.temperature, MIN_TEMPERATURE) for row in rows], logits)
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def _probabilities(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    return torch.softmax(_scaled(logits, rows).double(), dim=-1)


def _above_min_p(probabilities: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """Zeroes what is less likely than `min_p` times the likeliest token."""
    if not any(row.params.min_p > 0.0 for row in rows):
        return probabilities
    floor = _column([row.params.min_p for row in rows], probabilities) * probabilities.amax(-1, keepdim=True)
    return probabilities.masked_fill(probabilities < floor, 0.0)


def _invert(probabilities: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The first token at which the cumulative sum [R, V] exceeds the draw [R] times the total."""
    cumulative = probabilities.cumsum(-1)
    target = draws[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True)[:, 0]
    last = (probabilities > 0).long().mul(torch.arange(1, probabilities.shape[1] + 1, device=draws.device)).amax(-1) - 1
    return torch.minimum(found, last)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
