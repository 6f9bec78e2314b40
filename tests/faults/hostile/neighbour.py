"""A client who does nothing wrong, and asks another model while somebody attacks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import httpx

from tests.faults.hostile.client import HEADERS, TIMEOUT_S, status_of
from tests.helpers.background import in_background
from tests.helpers.jobs.serving import Service

EVERY_S = 0.25
BODY = {"prompt": "the parcel is late and broken", "max_tokens": 4, "temperature": 0.0}


@contextmanager
def asking(service: Service, model: str) -> Iterator["Neighbour"]:
    """Asks `model` for a short completion again and again while the context is open."""
    neighbour = Neighbour(service, model)
    with in_background(neighbour.run, patience_s=TIMEOUT_S):
        yield neighbour


class Neighbour:
    """What came of such requests: the longest that one took, and the statuses of those that were refused."""

    def __init__(self, service: Service, model: str) -> None:
        self._url, self._body = f"{service.url}/v1/completions", {"model": model, **BODY}
        self.longest_s = 0.0
        self.refusals: list[str] = []

    def run(self, is_over: threading.Event) -> None:
        with httpx.Client(headers=HEADERS, timeout=TIMEOUT_S) as http:
            while not is_over.is_set():
                begun = monotonic()
                self._note(self._ask(http), monotonic() - begun)
                is_over.wait(EVERY_S)

    def _ask(self, http: httpx.Client) -> str:
        try:
            return status_of(http.post(self._url, json=self._body))
        except httpx.TransportError as error:
            return f"no answer: {type(error).__name__}"

    def _note(self, status: str, seconds: float) -> None:
        self.longest_s = max(self.longest_s, seconds)
        if status != "200":
            self.refusals.append(status)
