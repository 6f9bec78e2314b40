"""The way of one model's texts to the processes that render and tokenize them: bounded, in turn, and given up with whoever asks.

Templates and tokenizers of checkpoints are programs of strangers, and tokenizing holds the interpreter's lock for as long as it takes: so
neither runs in the process that speaks HTTP. What is done there is in `actors.http.texts.text_work`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from actors.errors import OverloadedError
from actors.http.errors import ApiError
from actors.http.texts.text_work import load_tokenizer
from models.errors import OverrunError, TokenizerError
from models.isolation import IsolatedPool, ProcessLimits

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Lane = Literal["template", "text"]
"""What renders a chat template, and what does not: each has a worker of its own, so that a template that takes long is not waited for
by those that need none."""

LANES: Final[tuple[Lane, ...]] = ("template", "text")
LIMITS: Final = ProcessLimits(memory_bytes=104 << 20, step_s=3.0)
"""Of one piece of a request: 262,144 tokens of English, the longest context of a published model, take up to 100 MiB. Tokenizing has
more time the more text there is."""

MAX_WAIT_S: Final = 10.0
"""A request that has waited for its worker for so long is turned away: too many are before it."""


class TextPool:
    """The processes of one model: a server, and a worker for each lane. Used by one event loop."""

    def __init__(self, folder: str | Path, *, limits: ProcessLimits = LIMITS, max_wait_s: float = MAX_WAIT_S) -> None:
        """`folder` is that of the checkpoint's description. The processes start in the background."""
        self._folder, self._max_wait_s = folder, max_wait_s
        self._pool = IsolatedPool(partial(load_tokenizer, folder), limits=limits, num_workers=len(LANES))
        self._turns = {lane: asyncio.Semaphore() for lane in LANES}

    def start(self) -> None:
        """Waits until the tokenizer is loaded.

        Raises:
            TokenizerError: it cannot be.
        """
        try:
            self._pool.start()
        except OverrunError as error:
            raise TokenizerError(
                f"{self._folder}: the tokenizer cannot be loaded: {error}; use another checkpoint"
            ) from error

    async def run(self, lane: Lane, function: Callable[..., Result], *args: Any, param: str) -> Result:
        """`function(tokenizer, *args)` of `actors.http.texts.text_work` in the lane's worker; `param` is what of the request it is about.

        Raises:
            OverloadedError: too much is before it.
            ApiError: 400, it took too much time or memory; 500, its process died.
            Exception: whatever it raised.
        """
        async with self._turn(lane):
            try:
                return await self._pool.run_async(function, *args)
            except OverrunError as error:
                raise self._told(lane, error, param) from error

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        self._pool.close()

    @asynccontextmanager
    async def _turn(self, lane: Lane) -> AsyncGenerator[None]:
        turn = self._turns[lane]
        try:
            async with asyncio.timeout(self._max_wait_s):
                await turn.acquire()
        except TimeoutError as error:
            raise OverloadedError(f"other requests' texts took more than {self._max_wait_s:g} s") from error
        try:
            yield
        finally:
            turn.release()

    def _told(self, lane: Lane, error: OverrunError, param: str) -> ApiError:
        if error.reason == "crash":
            logger.error("the process that tokenizes for %s died: %s", self._folder, error)
            return ApiError(
                500, "the process that reads texts for this model died over this one", code="internal_error"
            )
        what = "the chat template and the tokenizer" if lane == "template" else "the tokenizer"
        message = f"{param}: {what} of this checkpoint went over a limit with it: {error}; shorten it, or serve another checkpoint"
        return ApiError(400, message, param=param, code="over_limit")


def check_tokenizer(folder: Path) -> None:
    """Loads a checkpoint's tokenizer once, where it can do no harm.

    Raises:
        TokenizerError: it cannot be loaded.
    """
    pool = TextPool(folder)
    try:
        pool.start()
    finally:
        pool.close()
