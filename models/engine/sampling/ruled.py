"""The rules of a step's rows, applied to its logits: each to all rows that have it, in the
table's order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from models.engine.rules.rule import Rule, RuledRow
from models.engine.rules.table import RULES
from models.engine.rules.tensors import BARRED


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedRule:
    """A rule of a sequence that has a slot, with what it keeps on the device meanwhile."""

    rule: Rule
    tensors: tuple[torch.Tensor, ...]


class RowWithRules(Protocol):
    """A sequence at its next token; see `models.engine.rules.rule.RuledRow`."""

    @property
    def rules(self) -> tuple[PlacedRule, ...]: ...

    @property
    def position(self) -> int: ...

    @property
    def num_prompt(self) -> int: ...

    @property
    def tokens(self) -> torch.Tensor: ...

    @property
    def stop_ids(self) -> Sequence[int]: ...


def ruled(logits: torch.Tensor, rows: Sequence[RowWithRules]) -> torch.Tensor:
    """Logits [R, V] -> float32 after all rules of each row. Where rules leave no token at all,
    they are as if there were none."""
    found = logits.to(torch.float32, copy=True)
    for kind in RULES:
        members = [
            (index, _ruled_row(row, placed))
            for index, row in enumerate(rows)
            for placed in row.rules
            if type(placed.rule) is kind
        ]
        if members:
            where = torch.tensor([index for index, _ in members], device=logits.device)
            part = found.index_select(0, where)
            kind.apply(part, [member for _, member in members])
            found.index_copy_(0, where, part)
    return torch.where(found.amax(dim=-1, keepdim=True) == BARRED, logits.float(), found)


def _ruled_row(row: RowWithRules, placed: PlacedRule) -> RuledRow[Any]:
    return RuledRow(
        rule=placed.rule,
        tensors=placed.tensors,
        position=row.position,
        num_prompt=row.num_prompt,
        tokens=row.tokens,
        stop_ids=row.stop_ids,
    )
