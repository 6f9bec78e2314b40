"""What happens to a stream that does not go to its end: a client that leaves, an engine that is lost, a service that is full."""

import asyncio
import json
import logging
import pickle
import socket
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from actors.errors import OverloadedError
from actors.http.routes.generation import merged
from actors.online.local import LocalModel
from actors.online.model import (
    FloatArray,
    OnlineRequest,
)
from models.engine.scheduling.request import Delta, SamplingParams
from models.engine.scheduling.stats import EngineStats, PriorityStats
from models.errors import EngineError
from models.tasks.embedding import EmbedOptions
from models.tasks.label_tokens import LabelIds
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import load, served, serving

PATIENCE_S = 1.0
SECRET = "Hello tabs Zürich"


class ScriptedModel:
    """Streams some deltas, then waits, ends or fails."""

    def __init__(self, num_deltas: int = 2, *, error: Exception | None = None, waits: bool = False) -> None:
        self.num_deltas, self.error, self.waits = num_deltas, error, waits
        self.num_open = 0

    async def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        self.num_open += 1
        try:
            for _ in range(self.num_deltas):
                yield Delta(token_ids=[5], text="x")
            if self.waits:
                await asyncio.Event().wait()
            if self.error is not None:
                raise self.error
            yield Delta(token_ids=[], text="", finish_reason="stop")
        finally:
            self.num_open -= 1

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        raise NotImplementedError

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        raise NotImplementedError

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        raise self.error or NotImplementedError

    async def stats(self) -> EngineStats:
        if self.error is not None:
            raise self.error
        return EngineStats(by_priority={"online": PriorityStats(num_running=self.num_open)})


@contextmanager
def scripted(path: Path, model: ScriptedModel, *, max_concurrent: int = 4) -> Iterator[str]:
    with serving([served("tiny", path, model, max_concurrent=max_concurrent)]) as address:
        yield address


def client_of(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def patient(tiny_checkpoint: Any) -> Iterator[tuple[str, LocalModel]]:
    """A model that can speak for a long time, and its address."""
    path = tiny_checkpoint("causal", max_position_embeddings=1 << 15)
    model = load(path)
    with serving([served("tiny", path, model)]) as address:
        yield address, model
    model.close()


def num_held(model: LocalModel) -> int:
    return asyncio.run(model.stats()).num_blocks_held


def until(condition: Any, patience_s: float = PATIENCE_S) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def leave(address: str, body: dict[str, Any], *, num_bytes: int) -> None:
    """Sends a request, reads the beginning of the answer if any is asked for, and closes the socket."""
    url = urlsplit(address)
    assert url.hostname is not None
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {url.hostname}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((url.hostname, url.port or 0)) as connection:
        connection.sendall(head.encode() + content)
        received = b""
        while len(received) < num_bytes:
            received += connection.recv(1024)
        if not num_bytes:
            time.sleep(0.2)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_blocks(patient: tuple[str, LocalModel], stream: bool) -> None:
    address, model = patient
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 30000, "n": 3, "ignore_eos": True, "stream": stream}
    leave(address, body, num_bytes=1000 if stream else 0)
    assert until(lambda: num_held(model) == 0)


def test_blocks_are_held_while_the_client_listens(patient: tuple[str, LocalModel]) -> None:
    address, model = patient
    with client_of(address) as client:
        stream = client.completions.create(
            model="tiny", prompt=[5, 6, 7], max_tokens=30000, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        assert num_held(model) > 0
        stream.close()
        assert until(lambda: num_held(model) == 0)


def test_an_engine_lost_in_mid_stream_is_an_error_event_and_the_end(causal_path: Path) -> None:
    model = ScriptedModel(error=EngineError("lost"))
    with scripted(causal_path, model) as address, client_of(address) as client:
        stream = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], stream=True)
        texts: list[str | None] = []
        with pytest.raises(openai.APIError, match="engine was lost"):
            texts.extend(chunk.choices[0].delta.content for chunk in stream)
        body = {"model": "tiny", "prompt": "x", "stream": True}
        lines = plain_http.post(f"{address}/v1/completions", json=body).text.split("\n\n")
        assert 'status="503"' in plain_http.get(f"{address}/metrics").text
    assert lines[-1] == ""
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "engine_lost"
    assert len(lines) == 4


def test_an_engine_lost_before_the_first_token_is_503(causal_path: Path) -> None:
    with scripted(causal_path, ScriptedModel(0, error=EngineError("lost"))) as address:
        for stream in (True, False):
            response = plain_http.post(
                f"{address}/v1/completions", json={"model": "tiny", "prompt": "x", "stream": stream}
            )
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "engine_lost"
        assert plain_http.get(f"{address}/ready").status_code == 503
        assert plain_http.get(f"{address}/health").status_code == 200


def test_a_real_engine_that_dies_leaves_nobody_waiting(causal_path: Path) -> None:
    model = load(causal_path)
    with serving([served("tiny", causal_path, model)]) as address, client_of(address) as client:
        stream = client.completions.create(
            model="tiny", prompt=[5, 6], max_tokens=500, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = iter(stream)
        next(chunks)
        model.close()
        with pytest.raises(openai.APIError, match="engine was lost"):
            list(chunks)
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model="tiny", prompt=[5, 6])


def test_what_is_too_much_at_once_is_429_with_retry_after(causal_path: Path) -> None:
    model = ScriptedModel(waits=True)
    with scripted(causal_path, model, max_concurrent=2) as address:
        body = {"model": "tiny", "prompt": "x", "stream": True, "n": 2}
        with plain_http.stream("POST", f"{address}/v1/completions", json=body) as busy:
            lines = busy.iter_lines()  # collected, it would close the connection
            next(lines)
            for stream in (True, False):
                refused = plain_http.post(f"{address}/v1/completions", json={**body, "stream": stream, "n": 1})
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "1"
                assert refused.json()["error"]["type"] == "rate_limit_error"
        assert until(lambda: model.num_open == 0)
        model.waits = False
        assert plain_http.post(f"{address}/v1/completions", json=body).status_code == 200
        too_many = plain_http.post(f"{address}/v1/completions", json={**body, "n": 3})
        assert too_many.status_code == 400


def test_a_model_that_takes_no_more_is_429(causal_path: Path) -> None:
    with scripted(causal_path, ScriptedModel(0, error=OverloadedError("full"))) as address:
        response = plain_http.post(f"{address}/v1/embeddings", json={"model": "tiny", "input": "x"})
        assert response.status_code == 429


def test_what_nobody_foresaw_is_told_and_logged_without_its_text(
    causal_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted(causal_path, ScriptedModel(0, error=KeyError(SECRET))) as address:
        response = plain_http.post(f"{address}/v1/completions", json={"model": "tiny", "prompt": SECRET})
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert SECRET not in response.text
    assert SECRET not in caplog.text
    assert "KeyError" in caplog.text


def test_prompts_and_outputs_are_not_logged(
    causal_path: Path, causal: LocalModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving([served("tiny", causal_path, causal)]) as address:
        body = {"model": "tiny", "prompt": SECRET, "max_tokens": 8}
        text = plain_http.post(f"{address}/v1/completions", json=body).json()["choices"][0]["text"]
        plain_http.post(f"{address}/v1/completions", json={**body, "stream": True})
        plain_http.post(f"{address}/v1/completions", json={**body, "model": 5})
    assert "/v1/completions tiny 200" in caplog.text
    for secret in (SECRET, text):
        assert secret not in caplog.text


def test_streams_are_closed_together_when_one_fails() -> None:
    async def main() -> int:
        models = [ScriptedModel(waits=True), ScriptedModel(error=EngineError("lost"))]
        request = OnlineRequest(request_id="a", token_ids=(5,), params=SamplingParams())
        async with aclosing(merged([model.stream(request) for model in models])) as deltas:
            with pytest.raises(EngineError):
                [delta async for delta in deltas]
        return sum(model.num_open for model in models)

    assert asyncio.run(main()) == 0


def test_what_crosses_processes_pickles() -> None:
    values = (
        OnlineRequest(request_id="a", token_ids=(5,), params=SamplingParams(seed=3)),
        Delta(token_ids=[5], text="x", finish_reason="stop"),
        EngineStats(by_priority={"online": PriorityStats(num_waiting=1, num_running=2)}),
    )
    assert pickle.loads(pickle.dumps(values)) == values
