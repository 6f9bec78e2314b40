"""How long something that answers at once is kept from answering: asked again and again, over a connection of its own."""

import http.client
import threading
from time import monotonic
from types import TracebackType
from urllib.parse import urlsplit

EVERY_S = 0.05
TIMEOUT_S = 90.0


class Prober:
    """Asks for one URL every `EVERY_S` while the context is open; any answer will do."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        assert split.hostname is not None
        self._path = split.path
        self._connection = http.client.HTTPConnection(split.hostname, split.port, timeout=TIMEOUT_S)
        self._longest_s = 0.0
        self._asked: float | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Prober":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(TIMEOUT_S)

    @property
    def longest_s(self) -> float:
        """The longest that an answer took, or has taken so far."""
        asked = self._asked
        return self._longest_s if asked is None else max(self._longest_s, monotonic() - asked)

    def _run(self) -> None:
        while not self._is_over.is_set():
            begun = self._asked = monotonic()
            while not self._has_answered():
                if self._is_over.wait(EVERY_S):
                    break
            self._longest_s, self._asked = max(self._longest_s, monotonic() - begun), None
            self._is_over.wait(EVERY_S)
        self._connection.close()

    def _has_answered(self) -> bool:
        """Whether an answer came; after a connection that broke, the next call begins another."""
        try:
            self._connection.request("GET", self._path)
            self._connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        return True
