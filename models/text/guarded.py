"""A second make of a tokenizer, for marked text: it takes the marks out, and finds special tokens only where none is.

The pipeline is the tokenizer's own, so every other token is what it was. See `models.text.special_text` for the marks.
"""

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import normalizers

from models.text.cuts import Cuts
from models.text.special_text import SpecialText

# Ends the names of hidden pieces. A text that holds it is refused.
_HIDDEN = "\ufdd0 hidden from the model \ufdd0"


class GuardedTokenizer:
    """Encodes marked text.

    Special strings that the model's own vocabulary holds are hidden from the model, since some (Unigram, such as
    Helium's) would find them by themselves; those it still makes out of plain text are `unguardable`.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special: SpecialText) -> None:
        description = json.loads(backend.to_str())
        self._hidden = _hide(description["model"], special.strings)
        for token in description["added_tokens"]:
            token["normalized"] = token["normalized"] and token["content"] not in special.strings
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(description))
        own = self._backend.normalizer
        self._backend.normalizer = normalizers.Sequence([*special.removal(), *([] if own is None else [own])])
        moved = {self._backend.token_to_id(token["content"]): token["id"] for token in description["added_tokens"]}
        self._moved = {ours: theirs for ours, theirs in moved.items() if ours != theirs}
        self.unguardable = self._find_unguardable(special, description["model"])

    def encode_batch(self, texts: Sequence[Any], *, add_special_tokens: bool = True) -> list[tokenizers.Encoding]:
        """The library's encodings of texts or pairs of texts.

        Their ids are told by `ids_of`; their offsets are in the marked texts.
        """
        encodings: list[tokenizers.Encoding] = self._backend.encode_batch(texts, add_special_tokens=add_special_tokens)
        return encodings

    def encode_ids(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """The ids that the tokenizer itself gives the tokens of these texts."""
        found = self._backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return list(map(self.ids_of, found))

    @property
    def cuts(self) -> Cuts:
        """Where marked texts can be cut."""
        return Cuts.of(self._backend)

    def ids_of(self, encoding: tokenizers.Encoding) -> list[int]:
        """The ids that the tokenizer itself gives these tokens."""
        ids: list[int] = encoding.ids
        return [self._moved.get(token_id, token_id) for token_id in ids] if self._moved else ids

    def _find_unguardable(self, special: SpecialText, model: dict[str, Any]) -> frozenset[str]:
        unknown = model.get("unk_token")
        found = {
            string
            for string in special.strings
            if string != unknown and self._backend.token_to_id(string) in self._plain_ids(special.mark(string))
        }
        return frozenset(found | set(self._hidden.values()))

    def _plain_ids(self, marked: str) -> list[int]:
        ids: list[int] = self._backend.encode(marked, add_special_tokens=False).ids
        return ids


def _hide(model: dict[str, Any], strings: frozenset[str]) -> dict[str, str]:
    """Renames these pieces of a model's vocabulary to what no text holds; returns the new names by the old ones.

    Not the piece for unknown text, which a model names, and none of one character, which may stand for a byte.
    """
    names = {string: f"{string}{_HIDDEN}" for string in strings if len(string) > 1 and string != model.get("unk_token")}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
        held = {piece for piece, _ in vocabulary}
    else:
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
        held = set(vocabulary)
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, names)]
    return {piece: name for piece, name in names.items() if piece in held}


def _touches(merge: Any, names: dict[str, str]) -> bool:
    """Whether a merge makes or takes one of these pieces.

    Merges are pairs, or in older files strings with a space between.
    """
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first in names or second in names or first + second in names
