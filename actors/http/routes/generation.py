"""The sequences of one HTTP request, generated side by side: admitted, counted, timed, and aborted together."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from actors.http.bodies.schema import CachedTokens, FinishReason, Usage
from actors.http.errors import ApiError
from actors.http.served import ServedModel, Service
from actors.online.metrics import RequestNote
from actors.online.model import OnlineRequest
from models.engine.scheduling.request import Delta, TokenLogprobs
from models.errors import EngineError


@dataclass(kw_only=True, slots=True)
class Collected:
    """A sequence as far as it has come."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0

    def take(self, delta: Delta) -> None:
        """Adds what has come."""
        self.token_ids += delta.token_ids
        self.text += delta.text
        self.logprobs += delta.logprobs or ()
        if delta.finish_reason is not None:
            self.finish_reason = finish_reason(delta)
            self.num_cached_tokens = delta.num_cached_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbered:
    """A delta of the request's sequence of that number."""

    index: int
    delta: Delta


class Generation:
    """The sequences `requests`, of which `num_each` belong to each prompt. Tokens are not counted as answers if
    `is_discarded`: the engine draws one where none was asked for."""

    def __init__(
        self,
        service: Service,
        served: ServedModel,
        requests: Sequence[OnlineRequest],
        note: RequestNote,
        *,
        num_each: int,
        is_discarded: bool = False,
    ) -> None:
        if len(requests) > served.admission.max_concurrent:
            raise ApiError(
                400,
                f"{len(requests)} sequences were asked for; at most {served.admission.max_concurrent} are possible at once",
                param="n" if num_each > 1 else "prompt",
            )
        self._service, self._served, self._requests, self._note = service, served, requests, note
        self._num_each, self._is_discarded = num_each, is_discarded
        self.collected = [Collected() for _ in requests]

    async def deltas(self) -> AsyncGenerator[Numbered]:
        """What comes of all sequences, as it comes.

        Raises:
            OverloadedError: too much is going on.
            RequestError: one of them cannot be served.
            EngineError: the engine is lost.
        """
        clocks = [self._service.metrics.clock(self._note, len(request.token_ids)) for request in self._requests]
        with self._served.admission.admit(len(self._requests)):
            streams = [self._served.model.stream(request) for request in self._requests]
            async with aclosing(merged(streams)) as items:
                async for item in items:
                    clocks[item.index].tick(len(item.delta.token_ids))
                    self.collected[item.index].take(item.delta)
                    yield item

    async def finish(self) -> list[Collected]:
        """All sequences, whole."""
        async with aclosing(self.deltas()) as deltas:
            async for _ in deltas:
                pass
        return self.collected

    def usage(self) -> Usage:
        """Tokens so far."""
        prompt = sum(len(request.token_ids) for request in self._requests[:: self._num_each])
        completion = 0 if self._is_discarded else sum(len(one.token_ids) for one in self.collected)
        cached = sum(one.num_cached_tokens for one in self.collected[:: self._num_each])
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=CachedTokens(cached_tokens=cached),
        )


def finish_reason(delta: Delta) -> FinishReason | None:
    """Why a sequence ended, None while it goes on.

    Raises:
        EngineError: the engine gave it up.
    """
    if delta.finish_reason == "abort":
        raise EngineError("the engine gave the request up")
    return delta.finish_reason


async def merged(streams: Sequence[AsyncGenerator[Delta]]) -> AsyncGenerator[Numbered]:
    """The deltas of several streams as they come, each to its end; all are closed when this one is, or one of them fails.

    Raises:
        EngineError: a stream ended without an end.
    """
    inbox: asyncio.Queue[Numbered | Exception | None] = asyncio.Queue()
    pumps = [asyncio.ensure_future(_pump(index, stream, inbox)) for index, stream in enumerate(streams)]
    num_open = len(pumps)
    try:
        while num_open:
            item = await inbox.get()
            if item is None:
                num_open -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(index: int, stream: AsyncGenerator[Delta], inbox: "asyncio.Queue[Numbered | Exception | None]") -> None:
    has_ended = False
    try:
        async with aclosing(stream):
            async for delta in stream:
                inbox.put_nowait(Numbered(index=index, delta=delta))
                has_ended = delta.finish_reason is not None
        inbox.put_nowait(None if has_ended else EngineError("a sequence ended without an end"))
    except Exception as error:  # noqa: BLE001 - it is raised where the deltas are read
        inbox.put_nowait(error)
