"""How much a client may ask for, in one request and at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from actors.errors import OverloadedError

MAX_CONCURRENT = 256
MAX_INPUTS = 2048
MAX_REQUEST_TOKENS = 1 << 20

MAX_TEXT_CHARS = 5 << 18
"""Of one text: five characters for each token of the longest context of a published model, 262,144. A tokenizer takes 80 bytes of memory
a character of English for it."""

MAX_DOCUMENT_CHARS = 3 << 18
"""Of one text whose tokens are to be found again in it, which takes twice that."""

CHARS_PER_TOKEN = 64
"""More than any text has: a model reads at most this many characters per token of its longest
sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """How much of a body is read, and what may be in it.

    A body has at most `max_body_bytes`; all that are being read have together at most `max_bodies_bytes`. It comes within `body_s`
    seconds, and never pauses for `body_idle_s`. Its JSON holds at most `max_values` values, `max_parts` of them texts, lists and
    objects, which take more memory than numbers.

    `max_n` answers a prompt; `max_inputs` prompts or texts a request, with together at most `max_request_tokens`;
    `max_prompt_logprobs` log probabilities of its prompts' tokens. Who is turned away because too much is going on is asked to come
    back after `retry_after_s`."""

    max_body_bytes: int = 8 << 20
    max_bodies_bytes: int = 64 << 20
    body_s: float = 30.0
    body_idle_s: float = 10.0
    max_values: int = MAX_REQUEST_TOKENS + (1 << 16)
    max_parts: int = 1 << 16
    max_n: int = 16
    max_inputs: int = MAX_INPUTS
    max_request_tokens: int = MAX_REQUEST_TOKENS
    max_prompt_logprobs: int = 1 << 19
    retry_after_s: int = 1


def max_text_chars(max_model_len: int) -> int:
    """Characters of the longest text that could fit a model."""
    return min(MAX_TEXT_CHARS, CHARS_PER_TOKEN * max_model_len)


class ConcurrencyLimit:
    """Counts the sequences of one model that are being served, and refuses what goes over the limit: nothing queues here."""

    def __init__(self, max_concurrent: int = MAX_CONCURRENT) -> None:
        self.max_concurrent = max_concurrent
        self.num_admitted = 0

    def check(self) -> None:
        """Refuses a request of any size before work on it begins, if there is no room.

        Raises:
            OverloadedError: as many sequences are being served as may be at once.
        """
        if self.num_admitted >= self.max_concurrent:
            raise OverloadedError(
                f"{self.num_admitted} sequences are being served, which is the most there are at once"
            )

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """`count` sequences are served meanwhile.

        Raises:
            OverloadedError: with them there would be too many.
        """
        if self.num_admitted + count > self.max_concurrent:
            raise OverloadedError(
                f"{self.num_admitted} sequences are being served and {count} more were asked for; "
                f"at most {self.max_concurrent} are at once"
            )
        self.num_admitted += count
        try:
            yield
        finally:
            self.num_admitted -= count
