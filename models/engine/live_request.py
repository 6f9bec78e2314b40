"""An unfinished request as whoever asked for it sees it: what its new tokens bring, or its output in the end.

It does not end sequences: it says where a stop string appeared, and the engine does. `text_tracker` finds those strings.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from models.engine.scheduling.request import Delta, Output, TokenLogprobs
from models.engine.scheduling.sequence import Sequence
from models.engine.text_tracker import TextTracker
from models.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What there is for whoever asked for a request: a delta if it is streamed, else its output, once it is finished."""

    request_id: str
    answer: Delta | Output


class LiveRequest:
    """A request that is not finished: its sequence, and its text so far where somebody needs it before the end."""

    def __init__(self, sequence: Sequence, tokenizer: Tokenizer | None, *, is_streamed: bool) -> None:
        """Text is tracked if it is streamed or a stop string may end it; without a tokenizer there is none."""
        self.sequence, self._tokenizer, self._is_streamed = sequence, tokenizer, is_streamed
        stop, self._min_tokens = sequence.request.params.stop, sequence.request.params.min_tokens
        needs_text = is_streamed or bool(stop)
        self._tracker = TextTracker(tokenizer, stop) if needs_text and tokenizer is not None else None

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has appeared."""
        return self._tracker is not None and self._tracker.is_stopped

    def push(self, new_tokens: Seq[int]) -> str:
        """Takes in tokens that its sequence has just got. Returns the text that is now certain."""
        if self._tracker is None:
            return ""
        sequence = self.sequence
        visible = new_tokens[:-1] if _ends_by_id(sequence) else new_tokens
        may_stop = len(sequence.token_ids) - sequence.num_prompt >= self._min_tokens
        return self._tracker.push(visible, is_last=sequence.is_finished, may_stop=may_stop)

    def deliveries(self, new_tokens: list[int], text: str) -> list[Delivery]:
        """What these tokens bring, of which `push` made this text: one delivery, or none. Without tokens it is that of a
        request which was ended from outside."""
        if self._is_streamed:
            answer: Delta | Output = self._delta(new_tokens, text)
        elif self.sequence.is_finished:
            answer = self._output()
        else:
            return []
        return [Delivery(request_id=self.sequence.request.request_id, answer=answer)]

    def _delta(self, new_tokens: list[int], text: str) -> Delta:
        return Delta(
            token_ids=new_tokens,
            text=text,
            logprobs=_new_logprobs(self.sequence, len(new_tokens)),
            prompt_logprobs=_prompt_logprobs(self.sequence, len(new_tokens)),
            finish_reason=self.sequence.finish_reason,
            num_cached_tokens=self.sequence.num_cached or 0,
        )

    def _output(self) -> Output:
        sequence, params = self.sequence, self.sequence.request.params
        assert sequence.finish_reason is not None
        return Output(
            token_ids=sequence.output_ids,
            text=self._text(),
            finish_reason=sequence.finish_reason,
            num_prompt_tokens=sequence.num_prompt,
            num_cached_tokens=sequence.num_cached or 0,
            logprobs=None if params.logprobs is None else sequence.logprobs,
            prompt_logprobs=None if params.prompt_logprobs is None else sequence.prompt_logprobs,
        )

    def _text(self) -> str:
        if self._tracker is not None:
            return self._tracker.text
        if self._tokenizer is None:
            return ""
        ids = self.sequence.output_ids
        return self._tokenizer.decode(ids[:-1] if _ends_by_id(self.sequence) else ids)


def _ends_by_id(sequence: Sequence) -> bool:
    """Whether the last token is the one that stopped the sequence, which is no part of its text."""
    return sequence.finish_reason == "stop" and sequence.token_ids[-1] in sequence.request.stop_ids


def _new_logprobs(sequence: Sequence, num_new: int) -> list[TokenLogprobs] | None:
    if sequence.request.params.logprobs is None or num_new == 0:
        return None
    found = sequence.logprobs
    return found[len(found) - num_new :]


def _prompt_logprobs(sequence: Sequence, num_new: int) -> list[TokenLogprobs | None] | None:
    """Those of the prompt, with its sequence's first tokens: all of it is computed then."""
    is_first = len(sequence.token_ids) - sequence.num_prompt == num_new > 0
    if sequence.request.params.prompt_logprobs is None or not is_first:
        return None
    return list(sequence.prompt_logprobs)
