"""`bad_words`: texts that are never completed. The last token of one is barred where those before
it are there, as in transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from models.engine.rules.kinds import Texts
from models.engine.rules.rule import Rule, RuledRow, parameter
from models.errors import ParameterError

if TYPE_CHECKING:
    import torch

MAX_CHARS = 256
MAX_TOKENS = 8192
"""Of all words of a request: each is looked at in every step."""

_NONE = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class BadWords(Rule):
    """`token_ids` are the words' tokens at the beginning of a text and behind a blank, where that
    differs; `longest` is the length of the longest of them."""

    looks_back: ClassVar = True

    bad_words: tuple[str, ...] = parameter((), Texts(max_chars=MAX_CHARS), "texts that are never completed")
    token_ids: tuple[tuple[int, ...], ...] = ()
    longest: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        if self.token_ids:
            return ()
        return tuple(form for word in self.bad_words for form in (word, " " + word.lstrip(" ")))

    @property
    def tokens_of_texts(self) -> Sequence[Sequence[int]]:
        return self.token_ids

    def with_tokens(self, token_ids: Sequence[Sequence[int]]) -> Self:
        for word, *forms in zip(self.bad_words, token_ids[::2], token_ids[1::2], strict=True):
            if not any(map(len, forms)):
                raise ParameterError(
                    "bad_words", f"holds {word!r}, of which the tokenizer makes no tokens; leave it out"
                )
        words = tuple(dict.fromkeys(tuple(map(int, ids)) for ids in token_ids if len(ids)))
        lengths = [*map(len, words)]
        if sum(lengths) > MAX_TOKENS:
            raise ParameterError("bad_words", f"comes to {sum(lengths)} tokens; at most {MAX_TOKENS} are possible")
        return replace(self, token_ids=words, longest=max(lengths))

    def tensors(self, device: "torch.device") -> "tuple[torch.Tensor, ...]":
        """The last token of each word [W]; all tokens before those [N], the number of the word of
        each, and how far they stand before the last one."""
        import torch

        before = [
            (token, number, len(word) - 1 - place)
            for number, word in enumerate(self.token_ids)
            for place, token in enumerate(word[:-1])
        ]
        last = torch.tensor([word[-1] for word in self.token_ids], device=device)
        return (last, *torch.tensor(before, dtype=torch.int64, device=device).view(-1, 3).unbind(1))

    @classmethod
    def apply(cls, logits: "torch.Tensor", rows: "Sequence[RuledRow[BadWords]]") -> None:
        import torch

        from models.engine.rules.tensors import bar, flat

        width = max(row.rule.longest for row in rows) - 1
        lasts, wanted, numbers, distances = zip(*(row.tensors for row in rows), strict=True)
        word_owners, last = flat(lasts)
        owners, before = flat(wanted)
        first = torch.searchsorted(word_owners, torch.arange(len(rows), device=logits.device))  # of each row's words
        ends = torch.stack([_ending(row.tokens, width) for row in rows])  # [R, width]
        is_missing = before != ends[owners, width - torch.cat(distances)]
        num_missing = torch.zeros(len(last), dtype=torch.int64, device=logits.device)
        num_missing.index_add_(0, first[owners] + torch.cat(numbers), is_missing.long())
        bar(logits, word_owners, last, num_missing == 0)


def _ending(tokens: "torch.Tensor", width: int) -> "torch.Tensor":
    """The last `width` tokens, with `_NONE` before them where there are fewer."""
    import torch

    ending = tokens[max(0, len(tokens) - width) :]
    return torch.nn.functional.pad(ending, (width - len(ending), 0), value=_NONE)
