"""A service on a free loopback port, in a thread of this process: real HTTP, no Ray."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import torch
import uvicorn

from actors.http.app import create_app
from actors.http.limits import ConcurrencyLimit, RequestLimits
from actors.http.security import ApiKeys
from actors.http.served import ServedModel
from actors.http.texts.text_pool import TextPool
from actors.online.local import LocalModel
from actors.online.model import ModelCard, OnlineModel
from actors.work import EngineSettings
from models.text.tokenizer import Tokenizer

START_S = 30
MAX_SEQS = 8


@contextmanager
def serving(
    models: Sequence[ServedModel], *, keys: ApiKeys | None = None, limits: RequestLimits | None = None
) -> Iterator[str]:
    """The address of a server of these models."""
    app = create_app(models, keys=keys, limits=limits)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5), timeout=START_S) as client:
            client.get(f"{address}/health")
        yield address
    finally:
        server.should_exit = True
        thread.join(START_S)
        listening.close()


def load(path: Path) -> LocalModel:
    """A checkpoint in this process, which keeps the number of threads it has."""
    return LocalModel.load(
        EngineSettings(
            path=str(path), dtype="float32", max_num_seqs=MAX_SEQS, block_size=4, num_threads=torch.get_num_threads()
        )
    )


def served(name: str, path: Path, model: OnlineModel, *, max_concurrent: int = 64) -> ServedModel:
    """A model under a name."""
    tokenizer = Tokenizer.from_pretrained(path)
    card = ModelCard.from_description(name, path, tokenizer)
    texts = TextPool(path)
    return ServedModel(
        card=card, tokenizer=tokenizer, texts=texts, model=model, admission=ConcurrencyLimit(max_concurrent)
    )


def shortened(model: ServedModel, max_model_len: int) -> ServedModel:
    """The same, as if its checkpoint was made for sequences of `max_model_len` tokens."""
    facts = replace(model.card.facts, max_model_len=max_model_len)
    return replace(model, card=replace(model.card, facts=facts))


def client_of(models: Sequence[ServedModel]) -> httpx.AsyncClient:
    """A client of a service of these models in this process, without a server."""
    transport = httpx.ASGITransport(app=create_app(models))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=None)
