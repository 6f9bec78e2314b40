"""Batch files for tests: lines as OpenAI's documentation has them, and what the HTTP API says to their bodies."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from jobs.spec.job import LoadedSpec, load_spec
from tests.helpers.actors.serving import load, served, serving

CHAT, TEXTS, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

DOCUMENTED = (
    (
        '{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o-mini", '
        '"messages": [{"role": "system", "content": "You are a helpful assistant."},{"role": "user", "content": "Hello world!"}],'
        '"max_tokens": 20}}'
    ),
    (
        '{"custom_id": "request-2", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o-mini", '
        '"messages": [{"role": "system", "content": "You are an unhelpful assistant."},{"role": "user", "content": "Hello world!"}],'
        '"max_tokens": 20}}'
    ),
)
"""The file of OpenAI's batch guide, with an answer that fits a tiny model."""


def line(custom_id: str, url: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "gpt-4o-mini", **body}})


def spec_of(folder: Path, model: Path, lines: Sequence[str | bytes], *, more: str = "", out: str = "out") -> LoadedSpec:
    """A job over a batch file with these lines."""
    content = [each if isinstance(each, bytes) else each.encode() for each in lines]
    (folder / "requests.jsonl").write_bytes(b"\n".join(content) + b"\n")
    file = folder / f"{out}.yaml"
    file.write_text(
        f"name: batch\nmodel: {{path: {model}, dtype: float32}}\ndate: 2026-01-31\n"
        f"engine: {{num_cpus: 1, max_num_seqs: 8, block_size: 4}}\n"
        f"input: {{paths: [{folder}/requests.jsonl], format: openai-batch}}\n"
        f"output: {{path: {folder}/{out}, format: openai-batch}}\n{more}"
    )
    return load_spec(file)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_bytes().splitlines()]


def over_http(model: Path, lines: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    """What a service of the checkpoint says to the bodies of these lines: status and body."""
    name, found = model.name, []
    local = load(model)
    try:
        with serving([served(name, model, local)]) as address, httpx.Client(base_url=address, timeout=120) as client:
            for request in map(json.loads, lines):
                answer = client.post(request["url"], json={**request["body"], "model": name})
                found.append((answer.status_code, answer.json()))
    finally:
        local.close()
    return found


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """A body without what no two answers share: ids, times, and what happened to be cached."""
    kept = {name: value for name, value in body.items() if name not in ("id", "created")}
    if "usage" in kept:
        kept["usage"] = {name: value for name, value in kept["usage"].items() if name != "prompt_tokens_details"}
    return kept
