"""Deltas of a fast engine put together, so that what passes between processes is counted in pieces and not in tokens."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain

from models.engine.scheduling.request import Delta


async def coalesced(deltas: AsyncGenerator[Delta], interval_s: float) -> AsyncGenerator[Delta]:
    """The same tokens: the first delta at once, and then everything that came since the last, at most every `interval_s`. Closing it closes
    `deltas`."""
    inbox: asyncio.Queue[Delta | Exception] = asyncio.Queue()

    async def collect() -> None:
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    inbox.put_nowait(delta)
        except Exception as error:  # noqa: BLE001 - crosses to the reader
            inbox.put_nowait(error)

    collecting = asyncio.create_task(collect())
    try:
        while True:
            found = [await inbox.get()]
            while not inbox.empty():
                found.append(inbox.get_nowait())
            good = [delta for delta in found if isinstance(delta, Delta)]
            if good:
                yield joined(good)
                if good[-1].finish_reason is not None:
                    return
            for error in found:
                if isinstance(error, Exception):
                    raise error
            await asyncio.sleep(interval_s)
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


def joined(deltas: Sequence[Delta]) -> Delta:
    """One delta in the place of several that follow each other."""
    if len(deltas) == 1:
        return deltas[0]
    logprobs = [delta.logprobs for delta in deltas if delta.logprobs is not None]
    return replace(
        deltas[-1],
        token_ids=[token for delta in deltas for token in delta.token_ids],
        text="".join(delta.text for delta in deltas),
        logprobs=[*chain(*logprobs)] if logprobs else None,
        prompt_logprobs=next((each.prompt_logprobs for each in deltas if each.prompt_logprobs is not None), None),
    )
