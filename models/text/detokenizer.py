"""Text from tokens as they arrive: never half a character, and together exactly what decoding all of them gives.

How a token's text depends on its neighbours is the tokenizer's decoder's matter, so there is one stream a kind of
decoder:

- byte-level tokens are bytes, and the text is their UTF-8;
- sentencepiece-like decoders work token by token, except for the first token (which may lose its space) and runs of
byte tokens
  (one invalid byte spoils its whole run, so a run is held until it ends);
- of any other decoder the text is only known at the end.
"""

import codecs
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tokenizers

from models.text.byte_level import BYTE_OF_CHARACTER

DecodeTokens = Callable[[list[str]], str]

_ANCHOR = "a"
_PER_TOKEN_DECODERS = frozenset({"Metaspace", "WordPiece", "Replace", "ByteFallback", "Strip"})


class TokenStream(Protocol):
    """What tells the text of tokens in order."""

    def push(self, tokens: Sequence[str]) -> str:
        """The text that these tokens make certain."""

    def finish(self) -> str:
        """The rest."""


class IncrementalDetokenizer:
    """The text of one sequence while its token ids arrive. Special tokens are left out, and so are ids that name no
    token."""

    def __init__(self, stream: TokenStream, token_of: Callable[[int], str | None], skipped: frozenset[str]) -> None:
        self._stream, self._token_of, self._skipped = stream, token_of, skipped
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """Everything delivered so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def push(self, ids: Sequence[int]) -> str:
        """Takes in token ids and returns the text that is now certain."""
        tokens = map(self._token_of, ids)
        return self._deliver(
            self._stream.push([token for token in tokens if token is not None and token not in self._skipped])
        )

    def finish(self) -> str:
        """Returns the rest: what was held back because more could have come. Nothing is pushed after it."""
        return self._deliver(self._stream.finish())

    def _deliver(self, piece: str) -> str:
        if piece:
            self._pieces.append(piece)
        return piece


def stream_maker(backend: tokenizers.Tokenizer) -> Callable[[], TokenStream]:
    """Chooses the kind of stream for a tokenizer's decoder."""
    decoder = backend.decoder
    description: dict[str, Any] = {"type": None} if decoder is None else json.loads(decoder.__getstate__())
    decode: DecodeTokens = " ".join if decoder is None else decoder.decode
    if description["type"] == "ByteLevel":
        return ByteStream
    if decoder is None or _works_token_by_token(description):
        return lambda: FragmentStream(decode)
    return lambda: WholeStream(decode)


def token_bytes(backend: tokenizers.Tokenizer, token: str) -> bytes:
    """What one token adds to the UTF-8 of a text that it stands in the middle of: perhaps half a character. An added
    token stands for its own string."""
    if any(added.content == token for added in backend.get_added_tokens_decoder().values()):
        return token.encode()
    decoder = backend.decoder
    if isinstance(decoder, tokenizers.decoders.ByteLevel):
        return _bytes_of(token)
    if _may_be_byte(token):
        return bytes([int(token[3:5], 16)])
    decode: DecodeTokens = " ".join if decoder is None else decoder.decode
    return decode([_ANCHOR, token])[len(decode([_ANCHOR])) :].encode()


def _works_token_by_token(description: dict[str, Any]) -> bool:
    """Whether a token's text depends on no other token, except for the first one and for runs of
    byte tokens."""
    steps = description["decoders"] if description["type"] == "Sequence" else [description]
    kinds = [step["type"] for step in steps]
    num_before = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    return set(kinds[:num_before]) <= _PER_TOKEN_DECODERS and all(map(_works_on_parts, steps[num_before + 1 :]))


def _works_on_parts(step: dict[str, Any]) -> bool:
    """Whether a step that sees the whole text does the same to its parts, except for the
    beginning."""
    if step["type"] == "Strip":
        return bool(step["stop"] == 0)
    return step["type"] == "Replace" and len(step["pattern"].get("String", "")) == 1


class ByteStream:
    """Tokens whose characters stand for bytes. Invalid UTF-8 becomes U+FFFD as soon as it is certain to be
    invalid."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, tokens: Sequence[str]) -> str:
        return self._decoder.decode(b"".join(map(_bytes_of, tokens)))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


def _bytes_of(token: str) -> bytes:
    """A byte-level token's bytes; a token with any character outside the byte alphabet stands for itself."""
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return token.encode()


class FragmentStream:
    """Tokens that are decoded one by one, the first ones and each run of byte tokens together.

    All but the beginning is decoded behind an anchor token, so that it is not taken for the beginning.
    """

    def __init__(self, decode: DecodeTokens) -> None:
        self._decode = decode
        self._anchor_length = len(decode([_ANCHOR]))
        self._held: list[str] = []
        self._is_at_start = True

    def push(self, tokens: Sequence[str]) -> str:
        self._held += tokens
        num_certain = len(self._held)
        while num_certain and _may_be_byte(self._held[num_certain - 1]):
            num_certain -= 1
        return self._take(num_certain)

    def finish(self) -> str:
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        """The text of the first held tokens. At the start, an empty text may still lose what follows: its tokens
        stay held."""
        if count == 0:
            return ""
        tokens = self._held[:count]
        text = self._decode(tokens) if self._is_at_start else self._decode([_ANCHOR, *tokens])[self._anchor_length :]
        if text or not self._is_at_start:
            self._is_at_start = False
            self._held = self._held[count:]
        return text


def _may_be_byte(token: str) -> bool:
    """Whether the token has the form <0xE2>, one byte of a character."""
    return len(token) == 6 and token.startswith("<0x")


class WholeStream:
    """Tokens whose text is only known when all of them are."""

    def __init__(self, decode: DecodeTokens) -> None:
        self._decode = decode
        self._tokens: list[str] = []

    def push(self, tokens: Sequence[str]) -> str:
        self._tokens += tokens
        return ""

    def finish(self) -> str:
        tokens, self._tokens = self._tokens, []
        return self._decode(tokens)
