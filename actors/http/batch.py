"""The HTTP API without HTTP: a model in this process behind the very app that a service has, called by hand, at batch priority.

What a call is answered is what a service would answer, but that nothing is turned away because too much goes on: calls wait here.
"""

import asyncio
from pathlib import PurePosixPath
from typing import Any

from starlette.types import Message, Scope

from actors.engine.core import LAST_WORDS_S
from actors.http.app import create_app
from actors.http.limits import ConcurrencyLimit
from actors.http.served import ServedModel
from actors.http.terms import TERMS, Terms
from actors.http.texts.text_pool import TextPool
from actors.online.local import LocalModel
from actors.online.model import ModelCard
from actors.work import (
    ApiAnswer,
    ApiCall,
    ApiWork,
    AskedOfApi,
    EngineAnswer,
    EngineSettings,
    OnAnswered,
    OnFailure,
    digits_of,
    unheard,
)
from models.checkpoint.url_secrets import public_url
from models.engine.memory import MemoryPlan
from models.engine.shard_processes import LocalShards, StartShards
from models.engine.watchdog import Watchdog
from models.errors import EngineError
from models.text.tokenizer import Tokenizer

CALLS_FACTOR = 2
"""Calls that the app has at once, for each sequence that the engine runs: their texts are read meanwhile."""

ENGINE_LOST = 503
"""The status of a call whose engine is lost. Nothing else has it where no keys are asked for."""

_NO_LIMIT = 1 << 30
_WAIT_S = 86_400.0
_HEADERS = ((b"host", b"127.0.0.1"), (b"content-type", b"application/json"))


class ApiEngine:
    """Loads one model and answers calls of the API for it."""

    def __init__(
        self,
        settings: EngineSettings,
        asked: AskedOfApi,
        *,
        start: StartShards = LocalShards,
        on_hang: OnFailure | None = None,
    ) -> None:
        """See `actors.engine.core.EngineCore`.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """
        watchdog = None if on_hang is None else Watchdog(settings.step_timeout_s, on_hang)
        self._watchdog, self._asked = watchdog, asked
        self._model = LocalModel.load(settings, start=start, watchdog=watchdog)
        self._served = _served(settings, self._model)
        self._app = create_app([self._served], fallback=self._served)
        self._places = asyncio.Semaphore(CALLS_FACTOR * settings.max_num_seqs)
        self._is_alone = settings.tensor_parallel_size == 1

    @property
    def memory(self) -> MemoryPlan:
        """What a shard of this engine takes, and what fits in."""
        return self._model.memory

    async def compute(self, work: ApiWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        """The answer to each call of `work`, in its order. Any number of these may run at once.

        Raises:
            EngineError: the engine failed; whatever is in flight is lost.
        """
        try:
            return list(
                await asyncio.gather(
                    *(self._answer(*each, on_answered) for each in zip(work.calls, work.seeds, strict=True))
                )
            )
        except EngineError:
            if not self._is_alone:  # the watcher of the shards may know why, and end this process with it
                await asyncio.sleep(LAST_WORDS_S)
            raise

    async def _answer(self, call: ApiCall, seed: int, on_answered: OnAnswered) -> ApiAnswer:
        terms = Terms(priority="batch", answer_id=digits_of(seed), seed=seed, now=self._asked.now, may_stream=False)
        async with self._places:
            answer = await asked_of(self._app, call, terms)
        if answer.status == ENGINE_LOST:
            raise EngineError(f"a call of {call.path} was lost with its engine: {answer.body.decode()}")
        on_answered(1)
        return answer

    def close(self) -> None:
        """Lets go of the model; calls in flight are lost."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._served.texts.close()
        self._model.close()


def _served(settings: EngineSettings, model: LocalModel) -> ServedModel:
    folder = settings.find("description").folder
    tokenizer = Tokenizer.from_pretrained(folder)
    card = ModelCard.from_description(_name_of(settings.path), folder, tokenizer, max_model_len=settings.max_model_len)
    texts = TextPool(folder, max_wait_s=_WAIT_S)
    return ServedModel(card=card, tokenizer=tokenizer, texts=texts, model=model, admission=ConcurrencyLimit(_NO_LIMIT))


def _name_of(place: str) -> str:
    """What answers call the model: a hub id as it is, of a folder or a URL its last part."""
    is_id = "://" not in place and not place.startswith("/")
    return place if is_id else PurePosixPath(public_url(place)).name


async def asked_of(app: Any, call: ApiCall, terms: Terms) -> ApiAnswer:
    """What an ASGI app answers to a call."""
    exchange = _Exchange(call)
    await app(exchange.scope(terms), exchange.receive, exchange.send)
    return exchange.answer()


class _Exchange:
    """One request to an ASGI app, whose client sends all of its body at once and stays to the end."""

    def __init__(self, call: ApiCall) -> None:
        self._call, self._is_sent = call, False
        self._status, self._body = 0, bytearray()

    def scope(self, terms: Terms) -> Scope:
        path = self._call.path
        length = (b"content-length", str(len(self._call.body)).encode())
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [*_HEADERS, length],
            TERMS: terms,
        }

    async def receive(self) -> Message:
        if self._is_sent:
            await asyncio.Event().wait()  # waiting for the client's end is cancelled with the answer
        self._is_sent = True
        return {"type": "http.request", "body": self._call.body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._body += message.get("body", b"")

    def answer(self) -> ApiAnswer:
        return ApiAnswer(status=self._status, body=bytes(self._body))
