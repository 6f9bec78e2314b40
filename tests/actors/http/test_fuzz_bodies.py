"""Bodies that nobody would send on purpose: every route answers with 2xx or an error of ours, and fails nowhere inside."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.http.limits import RequestLimits
from actors.online.local import LocalModel
from tests.helpers.actors.serving import load, served, serving, shortened

SHORT = 64
FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
TEXT = {"model": "causal", "prompt": "a b", "max_tokens": 1}
CHAT = {"model": "causal", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 1}
CHAT_TO_LABEL = {"model": "causal", "messages": CHAT["messages"], "labels": ["x", "y"]}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {**TEXT, "stop": ["x"], "logprobs": 1, "echo": True, "seed": 3, "top_k": 5, "n": 2}),
    ("/v1/completions", {**TEXT, "prompt": [[5, 6], [7]], "stop_token_ids": [3], "logit_bias": {"5": 1.5}}),
    (
        "/v1/completions",
        {**TEXT, "bad_words": ["a"], "allowed_token_ids": [5, 6], "no_repeat_ngram_size": 2, "min_tokens": 1},
    ),
    ("/v1/chat/completions", {**CHAT, "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5}),
    ("/v1/completions", {**TEXT, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {**CHAT, "chat_template_kwargs": {"enable_thinking": False}, "tools": [], "top_p": 0.5}),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
    ("/v1/embeddings", {"model": "causal", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8}),
    (
        "/v1/rerank",
        {"model": "reranker", "query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "instruction": "d"},
    ),
    ("/v1/score", {"model": "reranker", "text_1": ["a", "b"], "text_2": ["c", "d"]}),
    ("/v1/classify", {"model": "causal", "input": ["a"], "labels": ["x", "y"], "question": "Which?"}),
    (
        "/v1/classify",
        {
            "model": "causal",
            "input": "a",
            "labels": {"x": "y", "z": "w"},
            "label_texts": {"x": " v"},
            "label_stop": True,
            "examples": [{"text": "b", "label": "x"}],
            "calibrate": "prior",
            "label_mass": True,
        },
    ),
    ("/v1/classify", {"model": "causal", "prompt": ["a ", "b"], "labels": ["x", "y"]}),
    ("/v1/classify", {**CHAT_TO_LABEL, "chat_template_kwargs": {"enable_thinking": False}}),
    ("/v1/classify", {"model": "classifier", "input": "a"}),
    ("/v1/extract", {"model": "tagger", "input": ["a b", "c"]}),
    ("/tokenize", {"model": "causal", "prompt": "a", "add_special_tokens": True}),
    ("/tokenize", {"model": "causal", "messages": CHAT["messages"]}),
    ("/detokenize", {"model": "causal", "tokens": [5, 6]}),
]
KEYS = sorted({key for _, body in BODIES for key in body} | {"", "__class__", "a b", "\u00e9", "x" * 300})


def deep(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


NUMBERS = st.sampled_from(
    [0, -1, 1.5, -0.0, 1e308, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**30, float("nan"), float("inf"), -float("inf")]
)
TEXTS = st.sampled_from(
    ["", "\0", "\ud800", "\ud83d\ude00", "<|im_end|>", "{{ 1 }}", "x" * 5000, "\u202e", "e\u0301" * 50, "\n"]
) | st.text(max_size=6)
SMALL = st.none() | st.booleans() | NUMBERS | TEXTS
STRANGE = st.one_of(
    SMALL,
    st.lists(SMALL, max_size=4),
    st.dictionaries(st.sampled_from(KEYS), SMALL, max_size=3),
    st.builds(deep, st.sampled_from([2, 30, 200]), st.sampled_from(["list", "object"])),
    st.builds(lambda one, count: [one] * count, SMALL, st.sampled_from([65, 1025, 2049, 5000])),
    st.builds(lambda count: {f"k{n}": n for n in range(count)}, st.sampled_from([65, 5000])),
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with something else somewhere in it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from([*sorted(value), *KEYS]))
        if key in value and not draw(st.integers(0, 5)):
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: draw(changed(value[key]) if key in value else STRANGE)}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    return draw(STRANGE)


@st.composite
def bodies(draw: st.DrawFn, base: dict[str, Any]) -> bytes:
    """A changed body, and sometimes its bytes changed too."""
    value = base
    for _ in range(draw(st.integers(0, 2))):
        value = draw(changed(value))
    body = json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    match draw(st.integers(0, 9)):
        case 0:
            return body[: draw(st.integers(0, len(body)))]
        case 1:
            place = draw(st.integers(0, len(body)))
            inserted = draw(
                st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\0", b"[" * 3000, b"NaN", b"9" * 6000, b'"', b"\\u"])
            )
            return body[:place] + inserted + body[place:]
        case 2:
            return body.replace(b"{", b'{"model": 1, "model": "causal", ', 1)
    return body


class Errors(logging.Handler):
    """What is logged of failures inside."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


@pytest.fixture(scope="module")
def errors() -> Iterator[Errors]:
    found = Errors()
    loggers = [logging.getLogger(name) for name in ("", "uvicorn.error")]  # uvicorn passes nothing on to the root
    for logger in loggers:
        logger.addHandler(found)
    yield found
    for logger in loggers:
        logger.removeHandler(found)


@pytest.fixture(scope="module")
def client(
    causal_path: Path, causal: LocalModel, classifier_path: Path, tagger_path: Path, reranker_path: Path
) -> Iterator[httpx.Client]:
    others = {"classifier": classifier_path, "tagger": tagger_path, "reranker": reranker_path}
    loaded = {name: load(path) for name, path in others.items()}
    models = [served(name, others[name], model) for name, model in loaded.items()]
    short = shortened(served("causal", causal_path, causal), SHORT)  # so that answers without a limit are short
    headers = {"content-type": "application/json"}
    with (
        serving([short, *models], limits=RequestLimits(max_n=2)) as address,
        httpx.Client(base_url=address, headers=headers, timeout=60) as found,
    ):
        yield found
    for model in loaded.values():
        model.close()


@pytest.mark.slow
@pytest.mark.parametrize("num_examples", [20, pytest.param(60, marks=pytest.mark.faults)])
@pytest.mark.parametrize(("path", "base"), BODIES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_strange_body_gets_an_answer_or_an_error_of_ours(
    path: str, base: dict[str, Any], num_examples: int, client: httpx.Client, errors: Errors
) -> None:
    statuses = []

    @settings(FUZZ, max_examples=num_examples)
    @given(bodies(base))
    def ask(body: bytes) -> None:
        response = client.post(path, content=body)
        statuses.append(response.status_code)
        assert response.status_code == 200 or 400 <= response.status_code < 500, response.text
        if response.status_code != 200:
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert 0 < len(error["message"]) < 1000
        assert errors.records == []

    ask()
    assert {200, 400} <= set(statuses)
    assert client.get("/health").is_success
