"""`min_tokens`: nothing ends a sequence before it has so many. Stop strings wait for it as well
(`models.engine.live_request`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.engine.rules.kinds import Whole
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class MinTokens(Rule):
    """Bars the tokens that would end a sequence."""

    min_tokens: int = parameter(0, Whole(least=0, limit="max_tokens"), "nothing ends the text before so many tokens")

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[MinTokens]]") -> None:
        import torch

        from models.engine.rules.tensors import BARRED

        early = [index for index, row in enumerate(rows) if row.position - row.num_prompt < row.rule.min_tokens]
        owners = [index for index in early for _ in rows[index].stop_ids]
        ids = [token for index in early for token in rows[index].stop_ids]
        if ids:
            logits[torch.tensor(owners, device=logits.device), torch.tensor(ids, device=logits.device)] = BARRED
