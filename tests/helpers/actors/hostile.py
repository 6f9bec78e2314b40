"""A service of two models in this process, one of which has somebody's chat template."""

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from actors.online.local import LocalModel
from tests.helpers.actors.serving import client_of, served

BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
FRIENDLY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a chat request to the model with the template, and of those to the other model meanwhile."""

    status: int
    message: str
    seconds: float
    longest_health_s: float
    statuses_beside: set[int]


def chat_under(template: str, checkpoint: Path, model: LocalModel, folder: Path) -> Outcome:
    """One chat request to a model with a template; `folder` is for what has to be written."""
    models = []
    for name, source in (("theirs", template), ("ours", FRIENDLY)):
        place = shutil.copytree(checkpoint, folder / name)
        (place / "chat_template.jinja").write_text(source)
        models.append(served(name, place, model))

    async def asked() -> Outcome:
        async with client_of(models) as client:
            for each in models:
                await asyncio.to_thread(each.texts.start)
            asking = asyncio.ensure_future(_timed(client, "theirs"))
            beside: set[int] = set()
            longest = 0.0
            while not (asking.done() and beside):
                begun = time.monotonic()
                await client.get("/health")
                longest = max(longest, time.monotonic() - begun)
                response = await client.post("/v1/chat/completions", json={**BODY, "model": "ours"})
                beside.add(response.status_code)
            response, seconds = await asking
            return Outcome(
                status=response.status_code,
                message=response.text,
                seconds=seconds,
                longest_health_s=longest,
                statuses_beside=beside,
            )

    try:
        return asyncio.run(asked())
    finally:
        for each in models:
            each.texts.close()


async def _timed(client: httpx.AsyncClient, name: str) -> tuple[httpx.Response, float]:
    begun = time.monotonic()
    response = await client.post("/v1/chat/completions", json={**BODY, "model": name})
    return response, time.monotonic() - begun
