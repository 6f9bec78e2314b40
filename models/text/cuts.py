"""Where a text can be cut so that what follows keeps its tokens, whatever stands before the cut.

A tokenizer finds added tokens in a text, and treats what stands between them one by one: it normalizes it, splits it
into words, and looks up each word alone. So what follows the beginning of an added token, or of a word that begins
there in every text, has the same tokens wherever it stands. Such places are known for the pipelines that are
published; for any other pipeline no place is known, and a caller takes the whole text.

A part begins one character before the cut: what tokenizers do to the first character of a text (a space put before it)
then happens before the cut.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import tokenizers

from models.text.special_text import MARK

Rule = Literal["lines and spaces", "spaces", "pairs"]
"""Where a word begins in every text: at an ASCII letter after a line break, and at a space after
what is not blank; only at such a space; nowhere (`pairs`), but BPE over the whole text keeps its
tokens as long as each two neighbours stay what they are alone."""

GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LETTERS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_OTHERS: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LINE_PATTERNS: Final = frozenset({GPT2, *(f"{_LETTERS}{digits}{_OTHERS}" for digits in (r"\p{N}", r"\p{N}{1,3}"))})
"""Those of GPT-2, Qwen, and Llama 3 and cl100k. No alternative matches a line break and a letter after it, or a space
after what is not blank, or looks back: so a match ends between them, and the next begins there."""

_WHITESPACE_STEPS: Final = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
_NEUTRAL_STEPS: Final = frozenset({"Digits", "Punctuation"})
# These change a character by itself or with the combining marks after it.
_LOCAL_NORMALIZERS: Final = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Prepend"})
_PAIR_CHARS: Final = 64
_LOOK_BACK: Final = 64
_BROKEN: Final[dict[Rule, str]] = {"lines and spaces": "\n ", "spaces": " ▁", "pairs": ""}
"""Characters that stand at a cut: an added token that holds one could reach over it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuts:
    """The places of one tokenizer. `added` are its added tokens by id, `greedy_ends` the last characters of those that
    take along the blanks after them, `unknown_id` stands for what the vocabulary lacks."""

    rule: Rule | None
    unknown_id: int | None
    added: dict[int, tokenizers.AddedToken]
    greedy_ends: frozenset[str]

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> Self:
        """Those of a tokenizer, from its normalizer, pre-tokenizer, kind of model and added tokens."""
        added = backend.get_added_tokens_decoder()
        rule = _rule(backend)
        if rule is not None and any(_may_reach(token, _BROKEN[rule]) for token in added.values()):
            rule = None
        ends = frozenset(token.content[-1:] for token in added.values() if token.rstrip)
        unknown = getattr(backend.model, "unk_token", None)
        unknown_id = None if unknown is None else backend.token_to_id(unknown)
        return cls(rule=rule, unknown_id=unknown_id, added=added, greedy_ends=ends)

    def tail(self, prompt: str, encoding: tokenizers.Encoding) -> str | None:
        """The shortest known end of a prompt to which any text adds the tokens that it adds to the whole; `encoding` is
        the prompt's, without special tokens around it. None if none is known."""
        starts = (self._added_start(prompt, encoding), self.last(prompt))
        found = max((start for start in starts if start is not None), default=None)
        return None if found is None else prompt[found:]

    def pair_tail(self, prompt: str, encoding: tokenizers.Encoding) -> str | None:
        """An end of a prompt of which the same is true under the rule `pairs`, if its last token is the whole's."""
        last: list[int] = encoding.ids[-1:]
        if self.rule != "pairs" or not last or last[0] in self.added or last[0] == self.unknown_id:
            return None
        near = range(max(0, len(prompt) - _PAIR_CHARS), len(prompt))
        start = next((place for place in near if prompt[place].isascii() and prompt[place].isalnum()), None)
        longest = max((len(token.content) for token in self.added.values()), default=0)
        return None if start is None or longest > len(prompt) - start else prompt[start:]

    def last(self, text: str) -> int | None:
        """One character before the last place where a word begins in every text."""
        return next((place for place in range(len(text) - 2, -1, -1) if self._is_cut(text, place)), None)

    def _is_cut(self, text: str, place: int) -> bool:
        before, after = text[place], text[place + 1]
        if self.rule is None or self.rule == "pairs":
            return False
        is_line = self.rule == "lines and spaces" and before == "\n" and after.isascii() and after.isalpha()
        is_boundary = is_line or (after == " " and before.isprintable() and not before.isspace())
        return is_boundary and not self._is_taken_along(text, place)

    def _is_taken_along(self, text: str, place: int) -> bool:
        """Whether an added token before a place could take the blanks there along."""
        if not self.greedy_ends:
            return False
        shown = text[max(0, place + 1 - _LOOK_BACK) : place + 1].rstrip()
        return shown[-1:] in self.greedy_ends or (not shown and place >= _LOOK_BACK)

    def _added_start(self, prompt: str, encoding: tokenizers.Encoding) -> int | None:
        """Where the last added token of a prompt begins, if it is found there whatever stands around it."""
        for token_id, (start, end) in zip(reversed(encoding.ids), reversed(encoding.offsets), strict=True):
            token = self.added.get(token_id)
            if token is None or prompt[start:end].strip() != token.content.strip():
                continue
            reaches = start > 0 and any(prompt[start - 1 :] in other.content for other in self.added.values())
            return None if token.normalized or token.single_word or reaches else start
        return None


def _may_reach(token: tokenizers.AddedToken, broken: str) -> bool:
    return any(character in token.content for character in broken) or (token.rstrip and token.normalized)


def _rule(backend: tokenizers.Tokenizer) -> Rule | None:
    steps = _steps(backend.pre_tokenizer, "pretokenizers")
    normalizing = _steps(backend.normalizer, "normalizers")
    if not steps:
        return "pairs" if all(map(_is_local, normalizing)) and _is_plain_bpe(backend.model) else None
    deciding = next((step for step in steps if step["type"] not in _NEUTRAL_STEPS), {"type": None})
    if deciding["type"] in _WHITESPACE_STEPS:  # BERT's normalizer makes spaces of line breaks
        return (
            "lines and spaces"
            if all(_is_local(step) or step["type"] == "BertNormalizer" for step in normalizing)
            else None
        )
    if not all(map(_is_local, normalizing)):
        return None
    if deciding["type"] == "Metaspace":
        return "spaces" if deciding.get("split", True) else None
    return "lines and spaces" if _is_line_split(deciding) else None


def _steps(component: Any, parts: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer as tokenizer.json has them."""
    if component is None:
        return []
    return _flat(json.loads(component.__getstate__()), parts)


def _flat(step: dict[str, Any], parts: str) -> list[dict[str, Any]]:
    return [each for part in step[parts] for each in _flat(part, parts)] if parts in step else [step]


def _is_local(step: dict[str, Any]) -> bool:
    """Whether a normalizer changes characters by themselves, and leaves those at a cut."""
    if step["type"] != "Replace":
        return step["type"] in _LOCAL_NORMALIZERS
    is_mark = any(MARK in text for text in step["pattern"].values())
    return is_mark or (step["pattern"] == {"String": " "} and step["content"] == "▁")


def _is_line_split(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True))
    is_isolating = (step.get("behavior"), step.get("invert")) in {("Isolated", False), ("Removed", True)}
    return step["type"] == "Split" and is_isolating and step["pattern"].get("Regex") in _LINE_PATTERNS


def _is_plain_bpe(model: Any) -> bool:
    """BPE that merges by rank and by nothing else."""
    if not isinstance(model, tokenizers.models.BPE) or model.dropout or model.ignore_merges:
        return False
    return not model.continuing_subword_prefix and not model.end_of_word_suffix
