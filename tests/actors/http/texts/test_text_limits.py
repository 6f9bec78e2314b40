"""Texts are refused by their characters before anything reads them, and what reads them counts as being served."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from actors.errors import OverloadedError
from actors.http.limits import MAX_DOCUMENT_CHARS, max_text_chars
from actors.http.served import ServedModel
from actors.http.sse import ClientGoneError
from actors.http.texts.text_pool import Lane
from actors.http.turns import admitted
from actors.online.local import LocalModel
from models.text.tokenizer import Tokenizer
from tests.helpers.actors.serving import client_of, load, served

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
LONG = "x" * (max_text_chars(512) + 1)
LABELS = {"input": "x", "labels": ["a", "b"]}
TOO_MUCH: list[tuple[str, dict[str, Any], str]] = [
    ("v1/completions", {"prompt": LONG}, "prompt"),
    ("v1/completions", {"prompt": ["x", LONG]}, "prompt"),
    ("v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
    ("v1/chat/completions", {"messages": [{"role": "user", "content": LONG[:20_000]}] * 2}, "messages"),
    ("v1/embeddings", {"input": LONG}, "input"),
    ("v1/classify", {**LABELS, "input": LONG}, "input"),
    ("v1/classify", {**LABELS, "question": LONG}, "question"),
    ("v1/classify", {**LABELS, "labels": [LONG[:20_000], LONG[:20_001]]}, "labels"),
    ("v1/classify", {**LABELS, "labels": {"a": LONG[:20_000], "b": LONG[:20_001]}}, "labels"),
    ("v1/classify", {**LABELS, "label_texts": {"a": LONG}}, "label_texts"),
    ("v1/classify", {**LABELS, "examples": [{"text": LONG[:20_000], "label": "a"}] * 2}, "examples"),
    ("v1/classify", {**LABELS, "question": LONG[:20_000], "examples": [{"text": "x", "label": "a"}] * 2}, "examples"),
    ("v1/classify", {"prompt": LONG, "labels": ["a", "b"]}, "prompt"),
    ("v1/classify", {"prompt": "x", "labels": ["a", LONG]}, "labels"),
    ("v1/classify", {"messages": [{"role": "user", "content": LONG}], "labels": ["a", "b"]}, "messages"),
    ("tokenize", {"prompt": LONG}, "prompt"),
    ("tokenize", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
]


@pytest.fixture
def chat_model(causal_path: Path, causal: LocalModel, tmp_path: Path) -> ServedModel:
    folder = shutil.copytree(causal_path, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return served("m", folder, causal)


@pytest.fixture(scope="module")
def unread(causal_path: Path, causal: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A model for which nothing could be read: its processes have ended."""
    folder = shutil.copytree(causal_path, tmp_path_factory.mktemp("unread") / "chat")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    model = served("m", folder, causal)
    model.texts.close()
    return model


def answers(model: ServedModel, path: str, *bodies: dict[str, Any]) -> list[tuple[int, Any]]:
    async def asked() -> list[tuple[int, Any]]:
        async with client_of([model]) as client:
            return [(one.status_code, one.json()) for one in [await post(client, path, body) for body in bodies]]

    try:
        return asyncio.run(asked())
    finally:
        model.texts.close()


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    """Half a surrogate pair, which no tokenizer takes, can be sent escaped."""
    return await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize(("path", "body", "param"), TOO_MUCH)
def test_more_characters_than_could_fit_are_refused_unread(
    unread: ServedModel, path: str, body: dict[str, Any], param: str
) -> None:
    [(status, answer)] = answers(unread, path, {"model": "m", **body})
    assert (status, answer["error"]["param"]) == (400, param)
    assert answer["error"]["code"] == "context_length_exceeded"
    assert "characters; at most 32768 are possible" in answer["error"]["message"]


@pytest.mark.parametrize("body", [{"input": "x" * (MAX_DOCUMENT_CHARS + 1)}, {"input": "x", "question": LONG}])
def test_documents_and_questions_are_refused_unread(reader_path: Path, body: dict[str, Any]) -> None:
    model = load(reader_path)
    reader = served("m", reader_path, model)
    reader.texts.close()
    [(status, answer)] = answers(reader, "v1/extract", {"model": "m", "question": "q", **body})
    model.close()
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def work_on(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what the model's processes are asked to do from now on."""
    asked: list[str] = []
    run = model.texts.run

    async def noting(lane: Lane, function: Callable[..., Any], *args: Any, param: str) -> Any:
        asked.append(function.__name__)
        return await run(lane, function, *args, param=param)

    monkeypatch.setattr(model.texts, "run", noting)
    return asked


def test_a_question_that_leaves_no_room_is_refused_before_its_texts_are_read(
    reader_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(reader_path)
    reader = served("m", reader_path, model)
    asked = work_on(reader, monkeypatch)
    body = {"model": "m", "question": "word " * 1000, "input": ["a text"]}
    [(status, answer)] = answers(reader, "v1/extract", body)
    model.close()
    assert asked == ["encode_question"]
    assert (status, answer["error"]["param"]) == (400, "question")
    assert "the question has" in answer["error"]["message"]


def test_labels_around_which_no_text_fits_are_refused_before_the_texts_are_read(
    chat_model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    body: dict[str, Any] = {"model": "m", "input": ["a text"], "labels": ["a", "b"]}
    asked = work_on(chat_model, monkeypatch)
    bodies: dict[str, dict[str, Any]] = {
        "question": {"question": "word " * 1000},
        "labels": {"labels": ["a", "word " * 1000]},
        "examples": {"examples": [{"text": "word " * 1000, "label": "a"}]},
    }
    found = answers(chat_model, "v1/classify", *({**body, **more} for more in bodies.values()))
    assert asked == ["encode_labels"] * 3
    assert [(status, answer["error"]["param"]) for status, answer in found] == [(400, param) for param in bodies]
    assert "the question and the labels have" in found[0][1]["error"]["message"]
    assert "the question, the labels and the examples have" in found[2][1]["error"]["message"]


def test_the_process_that_speaks_http_reads_no_text(chat_model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_model.texts.start()
    for name in (
        "encode",
        "encode_batch",
        "encode_with_offsets",
        "encode_pairs",
        "encode_continued",
        "decode",
        "protect",
        "render_chat",
    ):
        monkeypatch.setattr(Tokenizer, name, refuse)
    messages = [{"role": "user", "content": "hello"}]
    bodies: dict[str, dict[str, Any]] = {
        "v1/completions": {"prompt": [[1, 2], [3]], "max_tokens": 0, "echo": True},
        "v1/chat/completions": {"messages": messages, "max_tokens": 1},
        "v1/embeddings": {"input": "hello"},
        "v1/classify": {**LABELS, "examples": [{"text": "x", "label": "a"}], "calibrate": "prior"},
        "tokenize": {"messages": messages},
        "detokenize": {"tokens": [1, 2, 3]},
    }

    async def asked() -> list[int]:
        async with client_of([chat_model]) as client:
            found = [await client.post(path, json={"model": "m", **body}) for path, body in bodies.items()]
            return [each.status_code for each in found]

    try:
        assert asyncio.run(asked()) == [200] * len(bodies)
    finally:
        chat_model.texts.close()


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a text was read in the process that speaks HTTP")


def admitting(num: int) -> Any:
    from actors.http.limits import ConcurrencyLimit

    return SimpleNamespace(admission=ConcurrencyLimit(num))


def test_what_reads_texts_takes_a_place_and_gives_it_back() -> None:
    async def flooded() -> None:
        model, is_over = admitting(1), asyncio.Event()
        request: Any = SimpleNamespace(receive=asyncio.Event().wait)
        first = asyncio.ensure_future(admitted(model, request, is_over.wait()))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await admitted(model, request, is_over.wait())
        is_over.set()
        assert await first
        assert model.admission.num_admitted == 0

    asyncio.run(flooded())


def test_what_reads_texts_is_given_up_when_the_client_goes() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def left() -> bool:
        is_cancelled = False

        async def work() -> None:
            nonlocal is_cancelled
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                is_cancelled = True
                raise

        request: Any = SimpleNamespace(receive=gone)
        with pytest.raises(ClientGoneError):
            await admitted(admitting(1), request, work())
        return is_cancelled

    assert asyncio.run(left())
