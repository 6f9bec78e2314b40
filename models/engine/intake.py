"""What a caller asks for becomes a request: its tokens are checked, its stop tokens and its seed are settled.

Whether it fits the model and the cache is the scheduler's to say.
"""

import random
from collections.abc import Sequence

from models.config.model_config import ModelConfig
from models.engine.scheduling.request import Priority, Request, SamplingParams
from models.errors import RequestError
from models.text.tokenizer import Tokenizer

SEED_BITS = 63


class Intake:
    """Makes requests for one model. `seed` makes the seeds of requests that bring none reproducible."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None, seed: int | None) -> None:
        self._vocab_size, self._tokenizer, self._seeds = config.vocab_size, tokenizer, random.Random(seed)
        # generation_config.json may name tokens that this vocabulary lacks
        self._eos_ids = frozenset(token for token in config.eos_token_ids if token < config.vocab_size)

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
        self._check_tokens(token_ids, params, stop_ids)
        return Request(
            request_id=request_id,
            token_ids=tuple(map(int, token_ids)),
            params=params,
            seed=self._choose_seed(params, seed),
            stop_ids=stop_ids,
            bad_word_ids=self._bad_word_ids(params),
            priority=priority,
        )

    def _check_tokens(self, token_ids: Sequence[int], params: SamplingParams, stop_ids: frozenset[int]) -> None:
        limit = self._vocab_size
        given: tuple[tuple[str, Sequence[int]], ...] = (
            ("prompt", token_ids),
            ("stop_token_ids", params.stop_token_ids),
            ("allowed_token_ids", params.allowed_token_ids or ()),
            ("logit_bias", list(params.logit_bias)),
        )
        for what, ids in given:
            if len(ids) and not 0 <= min(ids) <= max(ids) < limit:
                raise RequestError(
                    f"{what} holds token ids from {min(ids)} to {max(ids)}; the vocabulary has 0 to {limit - 1}"
                )
        if params.min_tokens > 0 and len(stop_ids) >= limit:
            raise RequestError("stop_token_ids bar the whole vocabulary until min_tokens; nothing is left to draw")
        for what, other in (("stop", "stop_token_ids"), ("bad_words", "logit_bias")):
            if getattr(params, what) and self._tokenizer is None:
                raise RequestError(
                    f"{what} strings need a tokenizer, and the checkpoint has no tokenizer.json; use {other}"
                )

    def _bad_word_ids(self, params: SamplingParams) -> tuple[tuple[int, ...], ...]:
        """What bad words are as tokens at the beginning of a text and behind a blank, where that differs."""
        if not params.bad_words or self._tokenizer is None:
            return ()
        forms = [form for word in params.bad_words for form in (word, " " + word.lstrip(" "))]
        encoded = (tuple(self._tokenizer.encode(form, add_special_tokens=False)) for form in forms)
        return tuple(dict.fromkeys(ids for ids in encoded if ids))

    def _choose_seed(self, params: SamplingParams, seed: int | None) -> int:
        chosen = seed if params.seed is None else params.seed
        if chosen is None:
            return self._seeds.getrandbits(SEED_BITS)
        if not 0 <= chosen < 2**SEED_BITS:
            raise RequestError(f"the request's seed was {chosen}; it must be from 0 to 2**{SEED_BITS} - 1, or absent")
        return chosen
