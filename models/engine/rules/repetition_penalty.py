"""`repetition_penalty` (CTRL, Keskar et al. 2019): tokens that were there before, the prompt's
too, become less likely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.engine.rules.kinds import Number
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch

MAX_PENALTY = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RepetitionPenalty(Rule):
    """Divides positive logits by the penalty and multiplies negative ones."""

    looks_back: ClassVar = True

    repetition_penalty: float = parameter(
        1.0,
        Number(least=0, most=MAX_PENALTY, above=True),
        "makes tokens that were there before, or in the prompt, rarer",
    )

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[RepetitionPenalty]]") -> None:
        from models.engine.rules.tensors import column, flat

        owners, ids = flat([row.tokens for row in rows])
        penalties = column([row.rule.repetition_penalty for row in rows], logits)[owners]
        found = logits[owners, ids]
        logits[owners, ids] = (found * penalties).where(found < 0, found / penalties)
