"""Echoed prompts and log probabilities, which an evaluation of likelihoods is made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from actors.http.limits import RequestLimits
from actors.online.local import LocalModel
from models import Scorer
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import served, serving

CONTEXT, CONTINUATION = [5, 6, 7, 8], [9, 10, 11]


@pytest.fixture(scope="module")
def address(causal_path: Path, causal: LocalModel) -> Iterator[str]:
    with serving([served("tiny", causal_path, causal)]) as found:
        yield found


def completion(address: str, **body: Any) -> dict[str, Any]:
    response = plain_http.post(
        f"{address}/v1/completions", json={"model": "tiny", "temperature": 0, **body}, timeout=60
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_likelihoods_are_read_as_lm_evaluation_harness_reads_them(address: str, causal_path: Path) -> None:
    prompt = CONTEXT + CONTINUATION
    answer = completion(address, prompt=[prompt, prompt[:5]], max_tokens=1, logprobs=1, echo=True, seed=1234)
    (logits, _) = Scorer.from_pretrained(causal_path, dtype="float32").score([prompt, prompt[:5]])
    logprobs = torch.log_softmax(logits, dim=-1)
    expected = [float(logprobs[place - 1, prompt[place]]) for place in range(len(CONTEXT), len(prompt))]
    found = answer["choices"][0]["logprobs"]
    assert found["token_logprobs"][len(CONTEXT) : -1] == pytest.approx(expected, abs=1e-4)
    greedy = [int(logprobs[place - 1].argmax()) == prompt[place] for place in range(len(CONTEXT), len(prompt))]
    tops = found["top_logprobs"][len(CONTEXT) : -1]
    pairs = zip(found["token_logprobs"][len(CONTEXT) : -1], tops, strict=True)
    assert [logprob == max(top.values()) for logprob, top in pairs] == greedy
    assert len(found["tokens"]) == len(found["text_offset"]) == len(prompt) + 1
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert len(answer["choices"][1]["logprobs"]["tokens"]) == 6


def test_no_tokens_with_an_echo_are_the_prompt_alone(address: str) -> None:
    answer = completion(address, prompt=CONTEXT, max_tokens=0, logprobs=2, echo=True)
    (choice,) = answer["choices"]
    assert len(choice["logprobs"]["tokens"]) == len(CONTEXT)
    assert choice["text"] == "".join(choice["logprobs"]["tokens"])
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    assert completion(address, prompt="Hello", max_tokens=0, echo=True)["choices"][0]["text"] == "Hello"


def test_a_streamed_echo_is_the_whole_one(address: str) -> None:
    body = {"prompt": "Hello world", "max_tokens": 4, "logprobs": 1, "echo": True}
    whole = completion(address, **body)["choices"][0]
    text, tokens, offsets = "", [], []
    with plain_http.stream(
        "POST", f"{address}/v1/completions", json={"model": "tiny", "temperature": 0, **body, "stream": True}
    ) as response:
        for choice in choices(response):
            text += choice["text"]
            tokens += (choice["logprobs"] or {"tokens": []})["tokens"]
            offsets += (choice["logprobs"] or {"text_offset": []})["text_offset"]
    assert text == whole["text"]
    assert tokens == whole["logprobs"]["tokens"]
    assert offsets == whole["logprobs"]["text_offset"]


def choices(response: httpx.Response) -> Iterator[dict[str, Any]]:
    import json

    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield from json.loads(line.removeprefix("data: "))["choices"]


def test_logprobs_of_zero_show_the_tokens_own(address: str) -> None:
    found = completion(address, prompt=CONTEXT, max_tokens=3, logprobs=0)["choices"][0]["logprobs"]
    assert [list(top.values()) for top in found["top_logprobs"]] == [[logprob] for logprob in found["token_logprobs"]]
    assert found["text_offset"][0] == 0


def test_more_log_probabilities_of_prompts_than_there_may_be_are_refused(causal_path: Path, causal: LocalModel) -> None:
    with serving([served("tiny", causal_path, causal)], limits=RequestLimits(max_prompt_logprobs=24)) as address:
        body = {"model": "tiny", "prompt": [CONTEXT, CONTEXT], "echo": True, "max_tokens": 0}
        statuses = [
            plain_http.post(f"{address}/v1/completions", json={**body, "logprobs": num}, timeout=60).status_code
            for num in (2, 3)
        ]
    assert statuses == [200, 400]
