"""`no_repeat_ngram_size`: no run of so many tokens comes for the second time, as in
transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.engine.rules.kinds import Whole
from models.engine.rules.rule import Rule, RuledRow, parameter

if TYPE_CHECKING:
    import torch

MAX_NGRAM = 100
_NONE = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class NoRepeatNgram(Rule):
    """Bars tokens that would make such a run, of the prompt's tokens too."""

    looks_back: ClassVar = True

    no_repeat_ngram_size: int = parameter(
        0, Whole(least=0, most=MAX_NGRAM), "no run of so many tokens comes twice, 0 is off"
    )

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[NoRepeatNgram]]") -> None:
        sizes = [row.rule.no_repeat_ngram_size for row in rows]
        for size in set(sizes):
            members = [index for index, each in enumerate(sizes) if each == size and rows[index].position >= size]
            if members:
                _bar_repeated(logits, members, [rows[index].tokens for index in members], size)


def _bar_repeated(logits: "torch.Tensor", members: list[int], texts: "list[torch.Tensor]", size: int) -> None:
    """Bars the ends of runs of `size` tokens whose beginnings are also the ends of the texts, of
    these rows of the logits."""
    import torch

    from models.engine.rules.tensors import bar

    lengths = torch.tensor([len(text) for text in texts], device=logits.device)
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=_NONE)  # [M, T]
    num_runs = padded.shape[1] - size + 1
    is_begun = padded[:, size - 1 :] != _NONE  # [M, T - size + 1] whole runs
    for place in range(size - 1):
        ends = padded.gather(1, (lengths - (size - 1) + place)[:, None])  # [M, 1]
        is_begun = is_begun & (padded[:, place : place + num_runs] == ends)
    owners = torch.tensor(members, device=logits.device)[:, None].expand_as(is_begun)
    bar(logits, owners.flatten(), padded[:, size - 1 :].clamp(min=0).flatten(), is_begun.flatten())
