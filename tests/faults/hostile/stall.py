"""How long something that answers at once is kept from answering: asked again and again, over a connection of its own."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from urllib.parse import urlsplit

from tests.helpers.background import in_background

EVERY_S = 0.05
TIMEOUT_S = 90.0


@contextmanager
def probing(url: str) -> Iterator["Prober"]:
    """Asks for one URL every `EVERY_S` while the context is open."""
    prober = Prober(url)
    with in_background(prober.run, patience_s=TIMEOUT_S):
        yield prober


class Prober:
    """What the answers of one URL took, whatever they were."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        assert split.hostname is not None
        self._path = split.path
        self._connection = http.client.HTTPConnection(split.hostname, split.port, timeout=TIMEOUT_S)
        self._longest_s = 0.0
        self._asked: float | None = None

    @property
    def longest_s(self) -> float:
        """The longest that an answer took, or has taken so far."""
        asked = self._asked
        return self._longest_s if asked is None else max(self._longest_s, monotonic() - asked)

    def run(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            begun = self._asked = monotonic()
            while not self._has_answered():
                if is_over.wait(EVERY_S):
                    break
            self._longest_s, self._asked = max(self._longest_s, monotonic() - begun), None
            is_over.wait(EVERY_S)
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
