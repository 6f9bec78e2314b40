"""What a request bars or favours among the next tokens, before one is drawn: one object a rule.

    RULES                        all of them, in the order in which transformers applies its own
    rule.is_asked(params)        whether a request has it
    rule.apply(logits, rows)     changes the logits [R, V] float32 of rows that have it, in place

A rule reads the tokens before the next one where they are, on the device, so that no step waits for the tokens of the last. A new rule is
a class here, a place in `RULES`, and its fields in `SamplingParams`.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from models.engine.scheduling.request import SamplingParams

BARRED = -torch.inf


class RuledRow(Protocol):
    """A sequence at its next token, whose place is `position`: `tokens` [position] are those before it, if any of its rules looks back, and
    the first `num_prompt` were given. Tokens that end it are `stop_ids`, and `bad_words` the token ids of what must not be said, as
    tensors on the logits' device."""

    @property
    def params(self) -> SamplingParams: ...

    @property
    def position(self) -> int: ...

    @property
    def tokens(self) -> torch.Tensor: ...

    @property
    def num_prompt(self) -> int: ...

    @property
    def stop_ids(self) -> Sequence[int]: ...

    @property
    def bad_words(self) -> Sequence[torch.Tensor]: ...


class LogitsRule(Protocol):
    """See the module."""

    def is_asked(self, params: SamplingParams) -> bool: ...

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None: ...


class LogitBias:
    """Adds to the logits of single tokens (OpenAI's `logit_bias`, transformers' sequence bias of one token)."""

    def is_asked(self, params: SamplingParams) -> bool:
        return bool(params.logit_bias)

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        owners = [index for index, row in enumerate(rows) for _ in row.params.logit_bias]
        ids = [token for row in rows for token in row.params.logit_bias]
        values = [value for row in rows for value in row.params.logit_bias.values()]
        where = (torch.tensor(owners, device=logits.device), torch.tensor(ids, device=logits.device))
        logits.index_put_(where, torch.tensor(values, dtype=logits.dtype, device=logits.device), accumulate=True)


class RepetitionPenalty:
    """Divides positive logits of tokens that were there before, and multiplies negative ones (CTRL, Keskar et al. 2019)."""

    def is_asked(self, params: SamplingParams) -> bool:
        return params.repetition_penalty != 1.0

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        owners, ids = _flat([row.tokens for row in rows])
        penalties = _column([row.params.repetition_penalty for row in rows], logits)[owners]
        found = logits[owners, ids]
        logits[owners, ids] = torch.where(found < 0, found * penalties, found / penalties)


class CountPenalties:
    """OpenAI's `frequency_penalty` for each time that a token was generated, and `presence_penalty` once it was."""

    def is_asked(self, params: SamplingParams) -> bool:
        return params.frequency_penalty != 0.0 or params.presence_penalty != 0.0

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        owners, ids = _flat([row.tokens[row.num_prompt :] for row in rows])
        frequency, presence = (
            _column(values, logits)
            for values in (
                [row.params.frequency_penalty for row in rows],
                [row.params.presence_penalty for row in rows],
            )
        )
        logits.index_put_((owners, ids), -frequency[owners], accumulate=True)
        is_there = torch.zeros_like(logits, dtype=torch.bool)
        is_there[owners, ids] = True
        logits.sub_(is_there * presence[:, None])


class NoRepeatedNgrams:
    """Bars tokens that would make a run of `no_repeat_ngram_size` tokens for the second time."""

    def is_asked(self, params: SamplingParams) -> bool:
        return params.no_repeat_ngram_size > 0

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        for index, row in enumerate(rows):
            size, tokens = row.params.no_repeat_ngram_size, row.tokens
            if tokens.numel() < size:
                continue
            runs = tokens.unfold(0, size, 1)  # [T - size + 1, size]
            is_begun = (runs[:, :-1] == tokens[tokens.numel() - size + 1 :]).all(dim=1)
            _bar(logits[index], runs[:, -1], is_begun)


class BadWords:
    """Bars the last token of a word where the ones before it are there."""

    def is_asked(self, params: SamplingParams) -> bool:
        return bool(params.bad_words)

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        for index, row in enumerate(rows):
            for word in row.bad_words:
                before = word.numel() - 1
                if before <= row.tokens.numel():
                    is_begun = (row.tokens[row.tokens.numel() - before :] == word[:-1]).all()
                    _bar(logits[index], word[-1:], is_begun[None])


class MinTokens:
    """Bars what would end a sequence before `min_tokens`."""

    def is_asked(self, params: SamplingParams) -> bool:
        return params.min_tokens > 0

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        for index, row in enumerate(rows):
            if row.position - row.num_prompt < row.params.min_tokens and row.stop_ids:
                logits[index, list(row.stop_ids)] = BARRED


class AllowedTokens:
    """Bars all tokens but these."""

    def is_asked(self, params: SamplingParams) -> bool:
        return params.allowed_token_ids is not None

    def apply(self, logits: torch.Tensor, rows: Sequence[RuledRow]) -> None:
        for index, row in enumerate(rows):
            allowed = torch.tensor(row.params.allowed_token_ids, device=logits.device)
            kept = logits[index, allowed]
            logits[index] = BARRED
            logits[index, allowed] = kept


RULES: tuple[LogitsRule, ...] = (
    LogitBias(),
    RepetitionPenalty(),
    CountPenalties(),
    NoRepeatedNgrams(),
    BadWords(),
    MinTokens(),
    AllowedTokens(),
)


def has_rules(params: SamplingParams) -> bool:
    """Whether a request has any."""
    return any(rule.is_asked(params) for rule in RULES)


def ruled(logits: torch.Tensor, rows: Sequence[RuledRow]) -> torch.Tensor:
    """Logits [R, V] -> float32 after all rules of each row. Where rules leave no token at all, they are as if there were none."""
    found = logits.to(torch.float32, copy=True)
    for rule in RULES:
        members = [index for index, row in enumerate(rows) if rule.is_asked(row.params)]
        if members:
            where = torch.tensor(members, device=logits.device)
            part = found.index_select(0, where)
            rule.apply(part, [rows[index] for index in members])
            found.index_copy_(0, where, part)
    return torch.where(found.amax(dim=-1, keepdim=True) == BARRED, logits.float(), found)


def _flat(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The row that each token is of, and all tokens, one row after the other."""
    device = parts[0].device
    sizes = torch.tensor([part.numel() for part in parts], device=device)
    return torch.repeat_interleave(torch.arange(len(parts), device=device), sizes), torch.cat(list(parts))


def _bar(logits: torch.Tensor, ids: torch.Tensor, is_barred: torch.Tensor) -> None:
    """Bars those of the tokens `ids` [N] of one row's logits [V] for which that is true, without asking the device which they are."""
    logits.index_add_(0, ids, torch.where(is_barred, BARRED, 0.0).to(logits.dtype))


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)
