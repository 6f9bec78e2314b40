"""How rank 0 of a replica tells the other ranks what to compute: one message a call over a channel to each (`models.parallel.channel`).

Broadcasting an object over gloo takes five times as long as this (docs/performance.md), and leaves a rank waiting when rank 0 is gone,
where a socket ends at once.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import EngineError
from models.parallel.channel import Channel


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What rank 0 has the others do: a method of what they run, and its arguments."""

    method: str
    arguments: tuple[Any, ...]


class CallSender:
    """Rank 0's end. Not safe for several threads."""

    def __init__(self, followers: Sequence[Channel]) -> None:
        self._followers = list(followers)

    def send(self, call: Call | None) -> None:
        """Hands a call, or None for the end, to every other rank.

        Raises:
            EngineError: one of them is gone.
        """
        content = pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            for follower in self._followers:
                follower.send(content)
        except OSError as error:
            raise EngineError(f"a shard is gone: {error}") from error

    def close(self) -> None:
        """Ends the connections; a rank that waits for a call learns that none will come."""
        for follower in self._followers:
            follower.close()


class CallReceiver:
    """The end of another rank."""

    def __init__(self, rank_0: Channel) -> None:
        self._rank_0 = rank_0

    def receive(self) -> Call | None:
        """The next call, None for the end; waits for it.

        Raises:
            EngineError: rank 0 is gone.
        """
        try:
            content = self._rank_0.receive()
        except OSError as error:
            raise EngineError(f"rank 0 is gone: {error}") from error
        call: Call | None = pickle.loads(content)  # noqa: S301 - the channel has it from rank 0 alone
        return call

    def close(self) -> None:
        """Ends the connection."""
        self._rank_0.close()
