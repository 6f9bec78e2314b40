"""`allowed_token_ids`: no other token is ever drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.engine.rules.kinds import TokenIds
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedTokens(Rule):
    """Bars all tokens but these."""

    allowed_token_ids: tuple[int, ...] | None = parameter(None, TokenIds(), "no other token is drawn")

    def tensors(self, device: "torch.device") -> "tuple[torch.Tensor, ...]":
        import torch

        return (torch.tensor(self.allowed_token_ids, device=device),)

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[AllowedTokens]]") -> None:
        import torch

        from models.engine.rules.tensors import BARRED, flat

        is_barred = torch.ones_like(logits, dtype=torch.bool)
        is_barred[flat([row.tensors[0] for row in rows])] = False
        logits.masked_fill_(is_barred, BARRED)
