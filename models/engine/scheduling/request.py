"""What is asked and what is answered: sampling parameters, requests, outputs.

Integers, strings and frozen dataclasses only; no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from models.errors import RequestError

FinishReason = Literal["stop", "length", "abort"]
Priority = Literal["online", "batch"]
PRIORITIES: tuple[Priority, ...] = ("online", "batch")
"""In the order they are served."""
MAX_LOGPROBS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when to stop.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1.0 and `min_p` 0.0 are off. `stop` strings end the text before
    they appear in it; `stop_token_ids` end the sequence as the model's own end-of-sequence tokens do, which
    `ignore_eos` switches off. No stop is honoured before `min_tokens`. `logprobs` and `prompt_logprobs` ask for that
    many alternatives a position, next to the token itself. `seed` makes the draws of a sampled request reproducible;
    None draws a fresh one for each request.

    Raises:
        RequestError: a value is out of its range; the text names the field.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        check = _Checker()
        check("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")
        check("min_tokens", self.min_tokens, 0 <= self.min_tokens <= self.max_tokens, "from 0 to max_tokens")
        check("temperature", self.temperature, 0.0 <= self.temperature <= 100.0, "from 0 (greedy) to 100")
        check("top_k", self.top_k, self.top_k >= 0, "0 (off) or more")
        check("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "over 0 and at most 1 (off)")
        check("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 (off) to 1")
        check(
            "stop",
            self.stop,
            not isinstance(self.stop, str) and all(isinstance(stop, str) and stop for stop in self.stop),
            "a list of strings, none of them empty",
        )
        check("seed", self.seed, self.seed is None or 0 <= self.seed < 2**63, "from 0 to 2**63 - 1, or absent")
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            check(name, count, count is None or 0 <= count <= MAX_LOGPROBS, f"from 0 to {MAX_LOGPROBS}, or absent")


class _Checker:
    """Turns a failed condition into the error text every field shares."""

    def __call__(self, name: str, given: object, is_fine: bool, allowed: str) -> None:
        if not is_fine:
            raise RequestError(f"sampling parameter {name} was {given!r}; it must be {allowed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprobs:
    """One position: the token that stands there, its log probability and rank, and the likeliest alternatives by
    token id."""

    token_id: int
    logprob: float
    rank: int
    top: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """A finished request.

    `text` ends before a stop string; `token_ids` holds every token generated, a stop token last if one ended it.
    `logprobs` has one entry a generated token, `prompt_logprobs` one a prompt token with None first.
    `num_cached_tokens` prompt tokens came from the prefix cache.
    """

    request_id: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a sequence is made from: token ids in, sampling parameters, and the seed its draws are keyed by.

    `priority` "online" is for somebody who waits: such a request takes tokens, slots and blocks from "batch" ones, which
    soak up what is left and come to the same tokens later.

    Raises:
        RequestError: there is no such priority.
    """

    request_id: str
    token_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    stop_ids: frozenset[int] = field(default_factory=frozenset)
    priority: Priority = "batch"

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise RequestError(f"the request's priority was {self.priority!r}; it must be {' or '.join(PRIORITIES)}")
