"""Log probabilities in the two shapes of OpenAI's API: a list of objects for chats, four lists side by side for completions."""

import codecs
from collections.abc import Sequence

from actors.http.bodies.schema import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob
from models.engine.scheduling.request import TokenLogprobs
from models.text.tokenizer import Tokenizer

LOWEST = -9999.0
"""Stands for log 0, which JSON cannot say."""


def chat_logprobs(entries: Sequence[TokenLogprobs], tokenizer: Tokenizer, num_top: int) -> ChatLogprobs:
    """A chat's shape, with the `num_top` likeliest tokens of each place."""
    return ChatLogprobs(content=[_chat_entry(entry, tokenizer, num_top) for entry in entries])


def _chat_entry(entry: TokenLogprobs, tokenizer: Tokenizer, num_top: int) -> TokenLogprob:
    shown = _top_logprob(tokenizer, entry.token_id, entry.logprob)
    likeliest = sorted(entry.top.items(), key=lambda item: -item[1])[:num_top]
    top = [_top_logprob(tokenizer, token_id, logprob) for token_id, logprob in likeliest]
    return TokenLogprob(token=shown.token, logprob=shown.logprob, bytes=shown.bytes, top_logprobs=top)


def _top_logprob(tokenizer: Tokenizer, token_id: int, logprob: float) -> TopLogprob:
    text = tokenizer.token_bytes(token_id)
    return TopLogprob(token=text.decode("utf-8", "replace"), logprob=max(LOWEST, logprob), bytes=list(text))


class CompletionLogprobsMaker:
    """A completion's shape, for the tokens of one sequence as they come; places in the text go on from one call to the next."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def prompt(self, token_ids: Sequence[int], entries: Sequence[TokenLogprobs | None]) -> CompletionLogprobs:
        """Of a prompt's tokens; the first has none."""
        return self._of(token_ids, entries)

    def answer(self, entries: Sequence[TokenLogprobs]) -> CompletionLogprobs:
        """Of generated tokens."""
        return self._of([entry.token_id for entry in entries], entries)

    def _of(self, token_ids: Sequence[int], entries: Sequence[TokenLogprobs | None]) -> CompletionLogprobs:
        return CompletionLogprobs(
            tokens=[self._name(token_id) for token_id in token_ids],
            token_logprobs=[None if entry is None else max(LOWEST, entry.logprob) for entry in entries],
            top_logprobs=[None if entry is None else self._top(entry) for entry in entries],
            text_offset=[self._take_offset(token_id) for token_id in token_ids],
        )

    def _top(self, entry: TokenLogprobs) -> dict[str, float]:
        """By name, the likeliest first and the token itself among them; of tokens with one name the likeliest counts."""
        found: dict[str, float] = {}
        for token_id, logprob in sorted(
            {**entry.top, entry.token_id: entry.logprob}.items(), key=lambda item: -item[1]
        ):
            found.setdefault(self._name(token_id), max(LOWEST, logprob))
        return found

    def _name(self, token_id: int) -> str:
        text = self._tokenizer.token_bytes(token_id)
        try:
            return text.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)

    def _take_offset(self, token_id: int) -> int:
        offset = self._offset
        self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token_id)))
        return offset


def joined(parts: Sequence[CompletionLogprobs]) -> CompletionLogprobs:
    """Several parts of one sequence's, in order."""
    return CompletionLogprobs(
        tokens=[token for part in parts for token in part.tokens],
        token_logprobs=[logprob for part in parts for logprob in part.token_logprobs],
        top_logprobs=[top for part in parts for top in part.top_logprobs],
        text_offset=[place for part in parts for place in part.text_offset],
    )
