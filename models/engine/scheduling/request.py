"""What is asked and what is answered: sampling parameters, requests, outputs and their deltas.

Integers, strings and frozen dataclasses only; no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from models.engine.rules.min_tokens import MinTokens
from models.engine.rules.rule import Rule
from models.engine.rules.table import check_names, tokens_named, values_of, with_parameters
from models.errors import ParameterError, RequestError

FinishReason = Literal["stop", "length", "abort"]
Priority = Literal["online", "batch"]
PRIORITIES: tuple[Priority, ...] = ("online", "batch")
"""In the order they are served."""
MAX_LOGPROBS = 100


@dataclass(frozen=True, kw_only=True, slots=True, init=False)
class SamplingParams:
    """How the next token is chosen, and when to stop.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1.0 and `min_p` 0.0 are off. `stop` strings end the
    text before they appear in it; `stop_token_ids` end the sequence as the model's own
    end-of-sequence tokens do, which `ignore_eos` switches off. `logprobs` and `prompt_logprobs` ask
    for that many alternatives a position, next to the token itself. `seed` makes the draws of a
    sampled request reproducible; None draws a fresh one for each request. `rules` are what bars or
    favours tokens before one is chosen; each parameter of a rule
    (`models.engine.rules.table.PARAMETERS`) may be given by its name:

        SamplingParams(max_tokens=64, min_tokens=8, repetition_penalty=1.1)

    Raises:
        ParameterError: a value is out of its range, or there is no such parameter.
    """

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    ignore_eos: bool
    seed: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    rules: tuple[Rule, ...]

    def __init__(
        self,
        *,
        max_tokens: int = 16,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        stop: tuple[str, ...] = (),
        stop_token_ids: tuple[int, ...] = (),
        ignore_eos: bool = False,
        seed: int | None = None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        rules: Iterable[Rule] = (),
        **of_rules: Any,
    ) -> None:
        values: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "stop": stop,
            "stop_token_ids": stop_token_ids,
            "ignore_eos": ignore_eos,
            "seed": seed,
            "logprobs": logprobs,
            "prompt_logprobs": prompt_logprobs,
        }
        check_names(of_rules, values)
        values["rules"] = with_parameters(rules, of_rules)
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as the dataclass's own does
        self._check()

    @property
    def min_tokens(self) -> int:
        """The parameter of that name: no stop is honoured before so many tokens."""
        return next((rule.min_tokens for rule in self.rules if isinstance(rule, MinTokens)), 0)

    @property
    def looks_back(self) -> bool:
        """Whether the next token depends on which ones were before it beyond what the network makes of them."""
        return any(rule.looks_back for rule in self.rules)

    def changed(self, **values: Any) -> "SamplingParams":
        """The same with other values, those of rules' parameters too."""
        return replace(self, **values)

    def values(self) -> dict[str, Any]:
        """Every parameter by its name, those of rules too."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "rules"}
        return own | values_of(self.rules)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Compares the tokens that the parameters name with those there are.

        Raises:
            ParameterError: one is not in a vocabulary of that size.
        """
        for name, ids in [("stop_token_ids", self.stop_token_ids), *tokens_named(self.rules)]:
            if len(ids) and not 0 <= min(ids) <= max(ids) < vocab_size:
                raise ParameterError(
                    name, f"holds token ids from {min(ids)} to {max(ids)}; the vocabulary has 0 to {vocab_size - 1}"
                )

    @property
    def texts_of_rules(self) -> tuple[str, ...]:
        """Texts whose tokens rules have to be given (`with_tokens`) before they are applied."""
        return tuple(text for rule in self.rules for text in rule.texts)

    def with_tokens(self, token_ids: Iterable[Sequence[int]]) -> "SamplingParams":
        """The same, whose rules have the tokens of `texts_of_rules`, in their order.

        Raises:
            ParameterError: a rule can do nothing with them.
        """
        left = iter(token_ids)
        given = ((rule, [next(left) for _ in rule.texts]) for rule in self.rules)
        return replace(self, rules=tuple(rule.with_tokens(ids) if ids else rule for rule, ids in given))

    def _check(self) -> None:
        check = _Checker()
        check("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")
        check("min_tokens", self.min_tokens, self.min_tokens <= self.max_tokens, "from 0 to max_tokens")
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
    """A finished request. It pickles small, for it is also what a run's engine answers in another
    process: of the prompt it has only its number of tokens.

    `text` ends before a stop string; `token_ids` holds every token generated, a stop token last if
    one ended it. `logprobs` has one entry a generated token, `prompt_logprobs` one a prompt token
    with None first. `num_cached_tokens` were not computed for it: those of its `num_prompt_tokens`
    that came from the prefix cache, or all, its answer's too, where an equal request in flight was
    answered.
    """

    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_cached_tokens: int
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """What came of a request that is streamed since its last delta: new tokens, and the text that is now certain. It
    pickles small: it is also what a service's engine answers in another process.

    The last delta has the `finish_reason`. Where they were asked for, `logprobs` has an entry for each of the new tokens,
    and the first delta that brings tokens has the prompt's. `num_cached_tokens` of the prompt came from the prefix cache.
    """

    token_ids: list[int]
    text: str
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a sequence is made from: token ids in, sampling parameters whose rules have all their
    tokens, and the seed its draws are keyed by.

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
