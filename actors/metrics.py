"""What a service counts, for Prometheus, on a registry of its own. Labels never hold what a client made up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from actors.online import OnlineStats
from models.engine.request import Priority

_BY = ("model", "priority")
_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BETWEEN_TOKENS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)


@dataclass(kw_only=True, slots=True)
class RequestNote:
    """What is known of one HTTP request while it is served. `model` is a served model's name or empty; `outcome` wins over the status
    that was sent, where a stream ended otherwise than it began."""

    started: float = field(default_factory=monotonic)
    endpoint: str = ""
    model: str = ""
    priority: Priority = "online"
    status: str = "499"
    outcome: str | None = None


class Metrics:
    """The counters, histograms and gauges of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "millrace_requests_total", "Requests that ended", (*_BY, "endpoint", "status"), registry=registry
        )
        self._prompt_tokens = Counter("millrace_prompt_tokens_total", "Prompt tokens taken in", _BY, registry=registry)
        self._completion_tokens = Counter(
            "millrace_completion_tokens_total", "Tokens generated", _BY, registry=registry
        )
        self._first_token = Histogram(
            "millrace_time_to_first_token_seconds",
            "From a request's arrival to a sequence's first token",
            _BY,
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self._between_tokens = Histogram(
            "millrace_time_between_tokens_seconds",
            "From one token of a sequence to the next",
            _BY,
            buckets=_BETWEEN_TOKENS_S,
            registry=registry,
        )
        self._queue = Gauge("millrace_queue_requests", "Requests that wait for the engine", _BY, registry=registry)
        self._running = Gauge("millrace_running_requests", "Requests that the engine runs", _BY, registry=registry)
        self._cache = Gauge(
            "millrace_cache_used_ratio", "Share of cache blocks that are held", ("model",), registry=registry
        )
        self._up = Gauge("millrace_model_up", "1 where a model can serve", ("model",), registry=registry)

    def count_request(self, note: RequestNote) -> None:
        """A request has ended."""
        status = note.outcome or note.status
        self._requests.labels(note.model, note.priority, note.endpoint, status).inc()

    def count_tokens(self, note: RequestNote, *, prompt: int = 0, completion: int = 0) -> None:
        """Tokens taken in and generated."""
        self._prompt_tokens.labels(note.model, note.priority).inc(prompt)
        self._completion_tokens.labels(note.model, note.priority).inc(completion)

    def clock(self, note: RequestNote) -> "TokenClock":
        """Times the tokens of one sequence of this request."""
        by = (note.model, note.priority)
        return TokenClock(note.started, self._first_token.labels(*by), self._between_tokens.labels(*by))

    def show_stats(self, stats: Mapping[str, OnlineStats | None]) -> None:
        """Sets the gauges; None is a model that cannot serve."""
        for model, found in stats.items():
            self._up.labels(model).set(0 if found is None else 1)
            if found is None:
                continue
            for priority, load in found.loads.items():
                self._queue.labels(model, priority).set(load.num_waiting)
                self._running.labels(model, priority).set(load.num_running)
            self._cache.labels(model).set(found.num_blocks_held / max(1, found.num_blocks))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class TokenClock:
    """The time to a sequence's first token, and between its later ones; tokens that come together share the time."""

    def __init__(self, started: float, first: Histogram, between: Histogram) -> None:
        self._last, self._first, self._between = started, first, between
        self._has_begun = False

    def tick(self, num_tokens: int) -> None:
        """Some tokens have come."""
        if num_tokens == 0:
            return
        now = monotonic()
        passed, self._last = now - self._last, now
        if not self._has_begun:
            self._has_begun = True
            self._first.observe(passed)
            num_tokens -= 1
            passed = 0.0
        for _ in range(num_tokens):
            self._between.observe(passed / num_tokens)
