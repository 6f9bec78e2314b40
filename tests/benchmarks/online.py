"""What a job on a service's replicas costs the people who use it online, and what HTTP costs.

    python -m tests.benchmarks.online fleet [--runs 5] [--seconds 15]      a job beside online traffic, and each alone, interleaved
    python -m tests.benchmarks.online http [--requests 96]                 tokens/s over HTTP next to the engine in this process

Starts `millrace serve` with one replica of the demo's causal model (a million weights, float32) and sends it streams from this
process. With so small a model every cost that is not the model's is at its largest.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

import jobs
from jobs.demo import CHECKPOINTS

CAUSAL = CHECKPOINTS / "causal"
REPOSITORY = Path(jobs.__file__).parents[1]
NUM_CLIENTS, MAX_TOKENS = 4, 96
MANY_CLIENTS = 32
WORDS = ("invoice", "parcel", "late", "broken", "refund", "please", "order", "help", "cancel", "account")
ENGINE = {"max_num_seqs": 64}


@dataclass
class Times:
    """Seconds to the first token of each stream, seconds between its pieces, and pieces in all."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    num_tokens: int = 0


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """The URL of a running service."""
    spec = {
        "name": "bench",
        "models": [{"name": "m", "path": str(CAUSAL), "dtype": "float32", "engine": ENGINE}],
        "http": {"port": 8471},
    }
    (folder / "service.yaml").write_text(yaml.safe_dump(spec))
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "serve", str(folder / "service.yaml")], stdout=log, stderr=log
    )
    try:
        while "serving" not in (folder / "log").read_text():
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.2)
        yield "http://127.0.0.1:8471"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


async def stream(client: httpx.AsyncClient, prompt: str, times: Times) -> None:
    """One completion, its pieces timed."""
    body = {
        "model": "m",
        "prompt": prompt,
        "max_tokens": MAX_TOKENS,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    last, is_first = time.perf_counter(), True
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            piece: dict[str, Any] = json.loads(line[6:])
            if piece.get("usage"):
                times.num_tokens += piece["usage"]["completion_tokens"]
            if not piece["choices"] or not piece["choices"][0]["text"]:
                continue
            now = time.perf_counter()
            (times.first if is_first else times.between).append(now - last)
            last, is_first = now, False


async def traffic(url: str, seconds: float, num_clients: int) -> Times:
    """Streams one after the other from each client, for so long."""
    times, end = Times(), time.perf_counter() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=num_clients)) as client:

        async def one(seed: int) -> None:
            draw = random.Random(seed)
            while time.perf_counter() < end:
                await stream(client, " ".join(draw.choices(WORDS, k=12)), times)

        await asyncio.gather(*map(one, range(num_clients)))
    return times


def start_job(folder: Path, name: str) -> "subprocess.Popen[bytes]":
    """A generation job on the service, larger than any of the spans measured."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        draw = random.Random(1)
        rows.write_text(
            "".join(json.dumps({"body": " ".join(draw.choices(WORDS, k=12))}) + "\n" for _ in range(40_000))
        )
    spec = {
        "name": "bench",
        "model": {"path": str(CAUSAL), "dtype": "float32"},
        "task": {
            "kind": "generate",
            "prompt": "{{ body }}",
            "sampling": {"max_tokens": MAX_TOKENS, "temperature": 0.0, "ignore_eos": True},
        },
        "input": {"paths": [str(rows)]},
        "output": {"path": str(folder / name), "format": "jsonl"},
        "engine": {"service": "bench"},
        "unit_rows": 64,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "run", str(folder / f"{name}.yaml")], stderr=subprocess.DEVNULL
    )


def tokens_committed(out: Path) -> int:
    """Completion tokens in receipts."""
    return sum(json.loads(path.read_bytes())["completion_tokens"] for path in (out / "receipts").glob("*.json"))


def job_speed(out: Path, seconds: float) -> float:
    """Tokens/s that a running job commits over a span."""
    before = tokens_committed(out)
    time.sleep(seconds)
    return (tokens_committed(out) - before) / seconds


def fleet(runs: int, seconds: float) -> None:
    """Online alone, the job alone, and both, once a run; medians over the runs."""
    alone, beside, speeds, shared = [], [], [], []
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as url:
        folder = Path(name)
        asyncio.run(traffic(url, 3, NUM_CLIENTS))
        for run in range(runs):
            alone.append(asyncio.run(traffic(url, seconds, NUM_CLIENTS)))
            out = folder / f"job-{run}"
            job = start_job(folder, out.name)
            while not list((out / "receipts").glob("*.json")):
                time.sleep(0.1)
            speeds.append(job_speed(out, seconds))
            before = tokens_committed(out)
            beside.append(asyncio.run(traffic(url, seconds, NUM_CLIENTS)))
            shared.append((tokens_committed(out) - before) / seconds)
            os.kill(job.pid, signal.SIGINT)
            job.wait(120)
    for what in ("first", "between"):
        medians = [statistics.median(p99(getattr(times, what)) for times in each) for each in (alone, beside)]
        without, along = (1e3 * seconds for seconds in medians)
        told = f"{without:.0f} ms online alone, {along:.0f} ms beside the job: {along / without:.2f} times"
        sys.stdout.write(f"p99 {what}: {told}\n")
    full, part = statistics.median(speeds), statistics.median(shared)
    sys.stdout.write(f"the job: {full:.0f} tokens/s alone, {part:.0f} beside online traffic: {part / full:.0%}\n")


def p99(values: list[float]) -> float:
    """The value that one in a hundred is over."""
    return sorted(values)[int(0.99 * len(values))]


def http(num_requests: int) -> None:
    """The same requests over HTTP with many clients at a time, and in the engine alone."""
    draw = random.Random(2)
    prompts = [" ".join(draw.choices(WORDS, k=12)) for _ in range(num_requests)]
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as url:
        asyncio.run(traffic(url, 3, MANY_CLIENTS))
        over_http = asyncio.run(_all(url, prompts))
    from models import Engine, SamplingParams

    with Engine.from_pretrained(CAUSAL, dtype="float32", max_num_seqs=MANY_CLIENTS) as engine:
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True)
        engine.generate(prompts[:8], params)
        start = time.perf_counter()
        num_tokens = sum(len(output.token_ids) for output in engine.generate(prompts, params))
        alone = num_tokens / (time.perf_counter() - start)
    sys.stdout.write(f"over HTTP {over_http:.0f} tokens/s, the engine alone {alone:.0f}: {over_http / alone:.0%}\n")


async def _all(url: str, prompts: list[str]) -> float:
    times, slots = Times(), asyncio.Semaphore(MANY_CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def one(prompt: str) -> None:
            async with slots:
                await stream(client, prompt, times)

        start = time.perf_counter()
        await asyncio.gather(*map(one, prompts))
        return times.num_tokens / (time.perf_counter() - start)


def main() -> None:
    """Reads what to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("fleet")
    first.add_argument("--runs", type=int, default=5)
    first.add_argument("--seconds", type=float, default=15.0)
    second = commands.add_parser("http")
    second.add_argument("--requests", type=int, default=96)
    given = parser.parse_args()
    if given.command == "fleet":
        fleet(given.runs, given.seconds)
    else:
        http(given.requests)


if __name__ == "__main__":
    main()
