"""`logit_bias`: numbers that are added to the logits of single tokens, as OpenAI has it
(transformers' sequence bias of one token)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.engine.rules.kinds import TokenNumbers
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch

MAX_BIAS = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitBias(Rule):
    """See the module."""

    logit_bias: Mapping[int, float] = parameter(
        {}, TokenNumbers(least=-MAX_BIAS, most=MAX_BIAS), "added to the logits of these tokens"
    )

    def tensors(self, device: "torch.device") -> "tuple[torch.Tensor, ...]":
        import torch

        ids, values = list(self.logit_bias), list(self.logit_bias.values())
        return torch.tensor(ids, device=device), torch.tensor(values, dtype=torch.float32, device=device)

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[LogitBias]]") -> None:
        from models.engine.rules.tensors import flat

        owners, ids = flat([row.tensors[0] for row in rows])
        _, values = flat([row.tensors[1] for row in rows])
        logits.index_put_((owners, ids), values, accumulate=True)
