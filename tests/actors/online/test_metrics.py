"""What Prometheus reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.online.local import LocalModel
from actors.online.metrics import Metrics, RequestNote
from models.engine.scheduling.stats import EngineStats, PriorityStats
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import served, serving
from tests.helpers.pipelines.killing import wait_until

BY = {"model": "tiny", "priority": "online"}


@pytest.fixture
def address(causal_path: Path, causal: LocalModel) -> Iterator[str]:
    with serving([served("tiny", causal_path, causal)]) as found:
        yield found


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(address: str, name: str, **labels: str) -> float:
    return values(plain_http.get(f"{address}/metrics").text)["millrace_" + name, tuple(sorted(labels.items()))]


def test_requests_and_tokens_are_counted_by_model_and_priority(address: str) -> None:
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 4, "n": 2}
    plain_http.post(f"{address}/v1/completions", json=body)
    plain_http.post(f"{address}/v1/completions", json={**body, "stream": True})
    plain_http.post(f"{address}/v1/completions", json={**body, "n": 0})
    ok = {"endpoint": "/v1/completions", "status": "200"}
    # A stream is counted when it is closed, a moment after its end.
    wait_until(lambda: value(address, "requests_total", **ok, **BY) == 2, "both requests to be counted")
    assert value(address, "requests_total", endpoint="/v1/completions", status="400", model="", priority="online") == 1
    assert value(address, "completion_tokens_total", **BY) == 16
    assert value(address, "time_to_first_token_seconds_count", **BY) == 4
    assert value(address, "time_between_tokens_seconds_count", **BY) == 12
    assert value(address, "queue_requests", **BY) == 0
    assert value(address, "running_requests", **BY) == 0
    assert value(address, "cache_used_ratio", model="tiny") == 0
    assert value(address, "model_up", model="tiny") == 1


def test_a_label_never_holds_what_a_client_made_up(address: str) -> None:
    plain_http.post(f"{address}/v1/completions", json={"model": "made-up", "prompt": "x"})
    plain_http.get(f"{address}/made-up")
    plain_http.get(f"{address}/v1/models/made-up")
    assert "made-up" not in plain_http.get(f"{address}/metrics").text


def test_what_engines_did_is_told_by_model_and_priority_and_stays_while_a_model_does_not_answer() -> None:
    metrics = Metrics()
    batch = PriorityStats(
        num_running=1, num_prompt_tokens=30, num_cached_tokens=18, num_generated_tokens=12, num_preemptions=2
    )
    stats = EngineStats(by_priority={"batch": batch}, num_blocks=8)
    metrics.show_stats({"tiny": stats})
    metrics.show_stats({"tiny": None})
    found = values(metrics.text().decode())
    labels = (("model", "tiny"), ("priority", "batch"))
    assert found["millrace_engine_prompt_tokens_total", labels] == 30
    assert found["millrace_engine_cached_tokens_total", labels] == 18
    assert found["millrace_engine_generated_tokens_total", labels] == 12
    assert found["millrace_engine_preemptions_total", labels] == 2


def test_a_model_that_only_scores_has_a_load_and_no_counters_of_an_engine() -> None:
    metrics = Metrics()
    metrics.show_stats({"tiny": EngineStats(by_priority={"online": PriorityStats()})})
    found = values(metrics.text().decode())
    labels = (("model", "tiny"), ("priority", "online"))
    assert found["millrace_queue_requests", labels] == found["millrace_running_requests", labels] == 0
    assert not [name for name, _ in found if name.startswith("millrace_engine_")]


def test_tokens_that_come_together_share_the_time() -> None:
    metrics, note = Metrics(), RequestNote(model="tiny")
    clock = metrics.clock(note, 7)
    for count in (3, 0, 2):
        clock.tick(count)
    found = values(metrics.text().decode())
    labels = tuple(sorted(BY.items()))
    assert found["millrace_time_to_first_token_seconds_count", labels] == 1
    assert found["millrace_time_between_tokens_seconds_count", labels] == 4
    assert found["millrace_prompt_tokens_total", labels] == 7
    assert found["millrace_completion_tokens_total", labels] == 5
