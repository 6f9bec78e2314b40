"""What is asked and what is answered: sampling parameters, requests, outputs.

Integers, strings and frozen dataclasses only; no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from models.errors import ParameterError, RequestError

FinishReason = Literal["stop", "length", "abort"]
Priority = Literal["online", "batch"]
PRIORITIES: tuple[Priority, ...] = ("online", "batch")
"""In the order they are served."""
MAX_LOGPROBS = 100
MAX_REPETITION_PENALTY = 100.0
MAX_NGRAM = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when to stop.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1.0 and `min_p` 0.0 are off. `stop` strings end the text before
    they appear in it; `stop_token_ids` end the sequence as the model's own end-of-sequence tokens do, which
    `ignore_eos` switches off. No stop is honoured before `min_tokens`. `logprobs` and `prompt_logprobs` ask for that
    many alternatives a position, next to the token itself. `repetition_penalty` 1.0 and the other penalties 0.0 are off:
    the first counts the prompt's tokens too, `presence_penalty` and `frequency_penalty` those generated. `logit_bias` adds
    to the logits of tokens, `allowed_token_ids` leaves no others, `bad_words` are texts that are never completed, and no
    run of `no_repeat_ngram_size` tokens (0: off) comes twice. `seed` makes the draws of a sampled request reproducible;
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
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    no_repeat_ngram_size: int = 0

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
        penalty = self.repetition_penalty
        check(
            "repetition_penalty",
            penalty,
            0.0 < penalty <= MAX_REPETITION_PENALTY,
            f"over 0 and at most {MAX_REPETITION_PENALTY:g}",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            check(name, value, -2.0 <= value <= 2.0, "from -2 to 2")
        is_bias = all(token >= 0 and -100.0 <= value <= 100.0 for token, value in self.logit_bias.items())
        check("logit_bias", self.logit_bias, is_bias, "a mapping from token ids to numbers from -100 to 100")
        allowed = self.allowed_token_ids
        check(
            "allowed_token_ids",
            allowed,
            allowed is None or len(allowed) > 0,
            "a list of at least one token id, or absent",
        )
        is_words = not isinstance(self.bad_words, str) and all(
            isinstance(word, str) and word for word in self.bad_words
        )
        check("bad_words", self.bad_words, is_words, "a list of strings, none of them empty")
        size = self.no_repeat_ngram_size
        check("no_repeat_ngram_size", size, 0 <= size <= MAX_NGRAM, f"from 0 (off) to {MAX_NGRAM}")
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            check(name, count, count is None or 0 <= count <= MAX_LOGPROBS, f"from 0 to {MAX_LOGPROBS}, or absent")

    @property
    def looks_back(self) -> bool:
        """Whether the next token depends on which ones were before it beyond what the network makes of them."""
        is_penal = self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0
        return is_penal or self.no_repeat_ngram_size > 0 or bool(self.bad_words)


class _Checker:
    """Turns a failed condition into the error text every field shares."""

    def __call__(self, name: str, given: object, is_fine: bool, allowed: str) -> None:
        if not is_fine:
            raise ParameterError(name, f"was {given!r}; it must be {allowed}")


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
    """What a sequence is made from: token ids in, sampling parameters, and the seed its draws are keyed by. `bad_word_ids` are
    the token ids of `params.bad_words`, in each form that a text may have them.

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
    bad_word_ids: tuple[tuple[int, ...], ...] = ()
    priority: Priority = "batch"

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise RequestError(f"the request's priority was {self.priority!r}; it must be {' or '.join(PRIORITIES)}")
