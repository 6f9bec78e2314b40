"""OpenAI's `frequency_penalty`, taken for each time that a token was generated, and
`presence_penalty`, taken once it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.engine.rules.kinds import Number
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch

_PENALTY = Number(least=-2, most=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class CountPenalties(Rule):
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, of the logit mu[j] of a token that was
    generated c[j] times."""

    looks_back: ClassVar = True

    presence_penalty: float = parameter(0.0, _PENALTY, "taken once from the logits of tokens that were generated")
    frequency_penalty: float = parameter(0.0, _PENALTY, "taken from the logit of a token each time it is generated")

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[CountPenalties]]") -> None:
        import torch

        from models.engine.rules.tensors import column, flat

        owners, ids = flat([row.tokens[row.num_prompt :] for row in rows])
        frequency = column([row.rule.frequency_penalty for row in rows], logits)
        presence = column([row.rule.presence_penalty for row in rows], logits)
        logits.index_put_((owners, ids), -frequency[owners], accumulate=True)
        is_there = torch.zeros_like(logits, dtype=torch.bool)
        is_there[owners, ids] = True
        logits.sub_(is_there * presence[:, None])
