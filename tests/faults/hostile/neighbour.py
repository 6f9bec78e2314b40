"""A client who does nothing wrong, and asks another model while somebody attacks."""

import threading
from time import monotonic
from types import TracebackType

import httpx

from tests.faults.hostile.client import HEADERS, TIMEOUT_S, status_of
from tests.helpers.jobs.serving import Service

EVERY_S = 0.25
BODY = {"prompt": "the parcel is late and broken", "max_tokens": 4, "temperature": 0.0}


class Neighbour:
    """Asks `model` for a short completion again and again while the context is open."""

    def __init__(self, service: Service, model: str) -> None:
        self._url, self._body = f"{service.url}/v1/completions", {"model": model, **BODY}
        self.longest_s = 0.0
        self.refusals: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Neighbour":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        with httpx.Client(headers=HEADERS, timeout=TIMEOUT_S) as http:
            while not self._is_over.is_set():
                begun = monotonic()
                self._note(self._ask(http), monotonic() - begun)
                self._is_over.wait(EVERY_S)

    def _ask(self, http: httpx.Client) -> str:
        try:
            return status_of(http.post(self._url, json=self._body))
        except httpx.TransportError as error:
            return f"no answer: {type(error).__name__}"

    def _note(self, status: str, seconds: float) -> None:
        self.longest_s = max(self.longest_s, seconds)
        if status != "200":
            self.refusals.append(status)
