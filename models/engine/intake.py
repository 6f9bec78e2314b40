"""What a caller asks for becomes a request: its tokens are checked, its stop tokens and its seed are settled.

Whether it fits the model and the cache is the scheduler's to say.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from models.config.model_config import ModelConfig
from models.engine.rules.rule import Rule, parameters_of
from models.engine.scheduling.request import Priority, Request, SamplingParams
from models.errors import ParameterError, RequestError
from models.text.tokenizer import Tokenizer

SEED_BITS = 63


class Intake:
    """Makes requests for one model. `seed` makes the seeds of requests that bring none reproducible."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None, seed: int | None) -> None:
        self._vocab_size, self._tokenizer, self._seeds = config.vocab_size, tokenizer, random.Random(seed)
        # generation_config.json may name tokens that this vocabulary lacks
        self._eos_ids = frozenset(token for token in config.eos_token_ids if token < config.vocab_size)
        self._known: tuple[tuple[Rule, ...], tuple[Rule, ...] | None] = ((), None)  # rules last given, and with tokens

    def token_ids(self, prompt: str | Sequence[int]) -> Sequence[int]:
        """A prompt's tokens, where it is not given as such."""
        if not isinstance(prompt, str):
            return prompt
        if self._tokenizer is None:
            raise RequestError("the checkpoint has no tokenizer.json, so prompts must be lists of token ids")
        return self._tokenizer.encode(prompt)

    def request(
        self,
        request_id: str,
        token_ids: Sequence[int],
        params: SamplingParams,
        *,
        seed: int | None,
        priority: Priority,
    ) -> Request:
        """The request that `Engine.add` was given.

        Raises:
            RequestError: it can never be served by this model.
        """
        stop_ids = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._eos_ids)
        fitted = self._with_tokens(params)
        self._check_tokens(token_ids, fitted, stop_ids)
        return Request(
            request_id=request_id,
            token_ids=tuple(map(int, token_ids)),
            params=fitted,
            seed=self._choose_seed(params, seed),
            stop_ids=stop_ids,
            priority=priority,
        )

    def _check_tokens(self, token_ids: Sequence[int], params: SamplingParams, stop_ids: frozenset[int]) -> None:
        limit = self._vocab_size
        if len(token_ids) and not 0 <= min(token_ids) <= max(token_ids) < limit:
            found = f"from {min(token_ids)} to {max(token_ids)}"
            raise RequestError(f"prompt holds token ids {found}; the vocabulary has 0 to {limit - 1}")
        params.check_vocabulary(limit)
        if params.min_tokens > 0 and len(stop_ids) >= limit:
            raise RequestError("stop_token_ids bar the whole vocabulary until min_tokens; nothing is left to draw")
        if params.stop and self._tokenizer is None:
            raise RequestError(
                "stop strings need a tokenizer, and the checkpoint has no tokenizer.json; use stop_token_ids"
            )

    def _with_tokens(self, params: SamplingParams) -> SamplingParams:
        """The parameters with the tokens of the texts of their rules; of a job's rows, which share them, they are made once."""
        texts = params.texts_of_rules
        if not texts:
            return params
        if self._tokenizer is None:
            name = next(each.name for rule in params.rules if rule.texts for each in parameters_of(type(rule)))
            raise ParameterError(name, "needs a tokenizer, and the checkpoint has no tokenizer.json; leave it out")
        given, known = self._known
        if known is None or given is not params.rules:
            encoded = (self._tokenizer.encode(text, add_special_tokens=False) for text in texts)
            known = params.with_tokens(encoded).rules
            self._known = params.rules, known
        return replace(params, rules=known)

    def _choose_seed(self, params: SamplingParams, seed: int | None) -> int:
        chosen = seed if params.seed is None else params.seed
        if chosen is None:
            return self._seeds.getrandbits(SEED_BITS)
        if not 0 <= chosen < 2**SEED_BITS:
            raise RequestError(f"the request's seed was {chosen}; it must be from 0 to 2**{SEED_BITS} - 1, or absent")
        return chosen
