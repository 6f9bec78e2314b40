"""The key-value store through which torch's backends tell each other their addresses.

It lies in rank 0's process; the other ranks ask for it over channels (`models.parallel.channel`).
torch's own `TCPStore` listens on all interfaces and lets everybody who connects list, read and write its keys.
"""

import json
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from torch.distributed import HashStore, Store  # type: ignore[attr-defined]

from models.errors import EngineError
from models.parallel.channel import Channel

POLL_S = 0.01
END_S = 1.0

_METHODS = frozenset(("set", "get", "add", "check", "delete_key", "append", "multi_get", "multi_set"))


class SharedStore:
    """Rank 0's: `store` is the store itself, which threads of this process read and write for the other ranks."""

    def __init__(self, followers: Sequence[Channel]) -> None:
        self.store = HashStore()
        self._followers = list(followers)
        self._threads = [
            threading.Thread(target=self._serve, args=(follower,), name="millrace-store", daemon=True)
            for follower in self._followers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the other ranks' connections to it."""
        for follower in self._followers:
            follower.hang_up()
        for thread in self._threads:
            thread.join(END_S)

    def _serve(self, follower: Channel) -> None:
        try:
            while True:
                method, arguments = _read(follower.receive())
                follower.send(_written(self._answer(method, arguments)))
        except OSError:  # that rank is gone, or this one leaves
            return
        finally:
            follower.close()

    def _answer(self, method: str, arguments: list[Any]) -> dict[str, Any]:
        assert method in _METHODS
        try:
            return {"result": getattr(self.store, method)(*arguments)}
        except (RuntimeError, ValueError) as error:  # as torch's stores raise them
            return {"error": str(error)}


class RemoteStore(Store):
    """Another rank's view of it. The methods are those of torch's stores that its process groups
    call, and mean the same. A thread that waits for a key asks again and again, so that the
    threads of a rank do not wait for each other.

    Every method raises EngineError if rank 0 is gone or refuses, or a key does not come within the
    store's timeout.
    """

    def __init__(self, rank_0: Channel) -> None:
        super().__init__()
        self._rank_0, self._lock = rank_0, threading.Lock()

    def set(self, key: str, value: bytes | str) -> None:
        self._ask("set", key, value)

    def get(self, key: str) -> bytes:
        self.wait([key])
        found: bytes = self._ask("get", key)
        return found

    def add(self, key: str, value: int) -> int:
        total: int = self._ask("add", key, value)
        return total

    def check(self, keys: list[str]) -> bool:
        are_there: bool = self._ask("check", keys)
        return are_there

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        limit: timedelta = self.timeout if timeout is None else timeout  # type: ignore[attr-defined]  # torch has it
        end = time.monotonic() + limit.total_seconds()
        while not self.check(keys):
            if time.monotonic() > end:
                raise EngineError(f"no rank has set all of {', '.join(keys)} within {limit.total_seconds():g} s")
            time.sleep(POLL_S)

    def delete_key(self, key: str) -> bool:
        was_there: bool = self._ask("delete_key", key)
        return was_there

    def append(self, key: str, value: bytes | str) -> None:
        self._ask("append", key, value)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.wait(keys)
        found: list[bytes] = self._ask("multi_get", keys)
        return found

    def multi_set(self, keys: list[str], values: list[bytes]) -> None:
        self._ask("multi_set", keys, values)

    def has_extended_api(self) -> bool:
        return True

    def clone(self) -> "RemoteStore":
        """Itself: it may be used from several threads."""
        return self

    deleteKey = delete_key  # noqa: N815 - the name by which torch calls it from C++

    def close(self) -> None:
        """Ends the connection."""
        self._rank_0.close()

    def _ask(self, method: str, *arguments: object) -> Any:
        try:
            with self._lock:
                self._rank_0.send(_written([method, arguments]))
                answer = _read(self._rank_0.receive())
        except OSError as error:
            raise EngineError(f"rank 0 is gone: {error}") from error
        if "error" in answer:
            raise EngineError(f"the store of the ranks: {answer['error']}")
        return answer["result"]


def _written(value: object) -> bytes:
    return json.dumps(value, default=lambda content: {"bytes": content.decode("latin-1")}).encode()


def _read(message: bytes) -> Any:
    return json.loads(message, object_hook=lambda o: o["bytes"].encode("latin-1") if "bytes" in o else o)
