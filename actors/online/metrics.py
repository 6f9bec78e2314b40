"""What a service counts, for Prometheus, on a registry of its own. Labels never hold what a client made up."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from models.engine.scheduling.request import Priority
from models.engine.scheduling.stats import EngineStats, PriorityStats

_BY = ("model", "priority")
_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BETWEEN_TOKENS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)
_DONE: tuple[tuple[str, str, Callable[[PriorityStats], int]], ...] = (
    ("prompt_tokens", "Prompt tokens that engines took in, jobs' among them", lambda done: done.num_prompt_tokens),
    ("cached_tokens", "Prompt tokens of those that were found in a prefix cache", lambda done: done.num_cached_tokens),
    ("generated_tokens", "Tokens that engines generated, jobs' among them", lambda done: done.num_generated_tokens),
    ("preemptions", "Requests sent back to their queue to make room", lambda done: done.num_preemptions),
)


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
        self._done = DoneCollector()
        registry.register(self._done)
        self._up = Gauge("millrace_model_up", "1 where a model can serve", ("model",), registry=registry)

    def count_request(self, note: RequestNote) -> None:
        """A request has ended."""
        status = note.outcome or note.status
        self._requests.labels(note.model, note.priority, note.endpoint, status).inc()

    def count_prompt(self, note: RequestNote, num_tokens: int) -> None:
        """Prompt tokens taken in, where nothing is generated."""
        self._prompt_tokens.labels(note.model, note.priority).inc(num_tokens)

    def clock(self, note: RequestNote, num_prompt: int) -> "TokenClock":
        """Counts and times the tokens of one sequence of this request, whose prompt has `num_prompt`."""
        by = (note.model, note.priority)
        return TokenClock(
            note.started,
            num_prompt,
            prompt_tokens=self._prompt_tokens.labels(*by),
            completion_tokens=self._completion_tokens.labels(*by),
            first=self._first_token.labels(*by),
            between=self._between_tokens.labels(*by),
        )

    def show_stats(self, stats: Mapping[str, EngineStats | None]) -> None:
        """Sets the gauges, and the counters that engines keep; None is a model that cannot serve."""
        for model, found in stats.items():
            self._up.labels(model).set(0 if found is None else 1)
            if found is None:
                continue
            for priority, stats_of_one in found.by_priority.items():
                self._queue.labels(model, priority).set(stats_of_one.num_waiting)
                self._running.labels(model, priority).set(stats_of_one.num_running)
            if found.num_blocks:  # else it scores, without an engine that counts
                self._done.by_model[model] = found.by_priority
            self._cache.labels(model).set(found.num_blocks_held / max(1, found.num_blocks))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class DoneCollector(Collector):
    """Counters that engines keep: what they did for each model and priority, as they last said."""

    def __init__(self) -> None:
        self.by_model: dict[str, Mapping[Priority, PriorityStats]] = {}

    def collect(self) -> Iterator[Metric]:
        """One family of counters for each thing that is counted."""
        for name, text, count in _DONE:
            family = CounterMetricFamily(f"millrace_engine_{name}", text, labels=_BY)
            for model, done in self.by_model.items():
                for priority, of_one in done.items():
                    family.add_metric([model, priority], count(of_one))
            yield family


class TokenClock:
    """Counts a sequence's tokens, with the first one its prompt's too. Takes the time to the first token, and between later ones; tokens
    that come together share the time."""

    def __init__(
        self,
        started: float,
        num_prompt: int,
        *,
        prompt_tokens: Counter,
        completion_tokens: Counter,
        first: Histogram,
        between: Histogram,
    ) -> None:
        self._last, self._num_prompt = started, num_prompt
        self._prompt_tokens, self._completion_tokens = prompt_tokens, completion_tokens
        self._first, self._between = first, between
        self._has_begun = False

    def tick(self, num_tokens: int) -> None:
        """Some tokens have come."""
        if num_tokens == 0:
            return
        now = monotonic()
        passed, self._last = now - self._last, now
        self._completion_tokens.inc(num_tokens)
        if not self._has_begun:
            self._has_begun = True
            self._prompt_tokens.inc(self._num_prompt)
            self._first.observe(passed)
            num_tokens -= 1
            passed = 0.0
        for _ in range(num_tokens):
            self._between.observe(passed / num_tokens)
