"""What a job on a service's replicas costs the people who use it online, and what HTTP costs.

    python -m tests.benchmarks.online fleet [--runs 5] [--seconds 15]      a job beside online traffic, and each alone, interleaved
    python -m tests.benchmarks.online http [--small] [--repeats 3] [--threads 2]    tokens/s over HTTP next to `millrace bench`, interleaved

Starts `millrace serve` with one replica and sends it streams from this process, on the same cores: with `--threads` for the engine that
leave none over, everything else takes its time from the engine. `http` takes the generation workload of
`workloads.py` (57 million weights), 32 requests at a time on either side, and says which process took how much CPU time a token;
`--small` and `fleet` take the demo's causal model (a million weights, float32), with which every cost that is not the model's is at its
largest.
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
import yaml

import jobs
from jobs.demo import CHECKPOINTS

CAUSAL = CHECKPOINTS / "causal"
REPOSITORY = Path(jobs.__file__).parents[1]
Result = TypeVar("Result")

NUM_CLIENTS, ONLINE_TOKENS, MAX_TOKENS = 4, 32, 96
MANY_CLIENTS = 32
WORDS = ("invoice", "parcel", "late", "broken", "refund", "please", "order", "help", "cancel", "account")


@dataclass
class Times:
    """Seconds to the first token of each stream, seconds between its pieces, and pieces in all."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    num_tokens: int = 0


@contextmanager
def service(folder: Path, model: Path, dtype: str, max_num_seqs: int, threads: int) -> Iterator[tuple[str, int]]:
    """The URL of a running service, and its process."""
    engine = {"max_num_seqs": max_num_seqs, "num_cpus": threads}
    spec = {
        "name": "bench",
        "models": [{"name": "m", "path": str(model), "dtype": dtype, "engine": engine}],
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
        yield "http://127.0.0.1:8471", process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


async def stream(client: aiohttp.ClientSession, prompt: str | list[int], times: Times, *, max_tokens: int) -> None:
    """One completion, its pieces timed."""
    body = {
        "model": "m",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    last, is_first = time.perf_counter(), True
    async with client.post("/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            piece: dict[str, Any] = orjson.loads(line[6:])
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
    async with aiohttp.ClientSession(url) as client:

        async def one(seed: int) -> None:
            draw = random.Random(seed)
            while time.perf_counter() < end:
                await stream(client, " ".join(draw.choices(WORDS, k=12)), times, max_tokens=ONLINE_TOKENS)

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


def during(url: str, what: Callable[[], Result]) -> tuple[Result, float]:
    """What a call returns, and how many tokens a second jobs got from the engine meanwhile."""
    before, start = batch_tokens(url), time.perf_counter()
    result = what()
    return result, (batch_tokens(url) - before) / (time.perf_counter() - start)


def batch_tokens(url: str) -> float:
    """Tokens that the engine generated for jobs so far."""
    for line in urllib.request.urlopen(f"{url}/metrics").read().decode().splitlines():
        if line.startswith("millrace_engine_generated_tokens_total") and 'priority="batch"' in line:
            return float(line.rpartition(" ")[2])
    raise SystemExit("the service counts no tokens of jobs")


def fleet(runs: int, seconds: float) -> None:
    """Online alone, the job alone, and both, once a run: each run, and medians over them."""
    alone, beside, speeds, shared = [], [], [], []

    def online() -> Times:
        return asyncio.run(traffic(url, seconds, NUM_CLIENTS))

    with tempfile.TemporaryDirectory() as name, service(Path(name), CAUSAL, "float32", 64, 1) as (url, _):
        folder = Path(name)
        asyncio.run(traffic(url, 3, NUM_CLIENTS))
        for run in range(runs):
            alone.append(online())
            out = folder / f"job-{run}"
            job = start_job(folder, out.name)
            while not list((out / "receipts").glob("*.json")):
                time.sleep(0.1)
            _, speed = during(url, lambda: time.sleep(seconds))
            times, share = during(url, online)
            speeds.append(speed)
            beside.append(times)
            shared.append(share)
            os.kill(job.pid, signal.SIGINT)
            job.wait(120)
            first = [1e3 * quantile(times[-1].first, 0.99) for times in (alone, beside)]
            sys.stdout.write(
                f"run {run + 1}: p99 to the first token {first[0]:.0f} and {first[1]:.0f} ms, "
                f"the job {speed:.0f} and {share:.0f} tokens/s\n"
            )
            sys.stdout.flush()
    for what, field_name in (("to the first token", "first"), ("between pieces", "between")):
        for name, rank in (("median", 0.5), ("p99", 0.99)):
            medians = [
                statistics.median(quantile(getattr(times, field_name), rank) for times in each)
                for each in (alone, beside)
            ]
            without, along = (1e3 * seconds for seconds in medians)
            told = f"{without:.0f} ms online alone, {along:.0f} ms beside the job: {along / without:.2f} times"
            sys.stdout.write(f"{name} {what}: {told}\n")
    rates = [
        statistics.median(sum(map(len, (times.first, times.between))) / seconds for times in each)
        for each in (alone, beside)
    ]
    sys.stdout.write(f"online: {rates[0]:.0f} pieces/s alone, {rates[1]:.0f} beside the job\n")
    full, part = statistics.median(speeds), statistics.median(shared)
    sys.stdout.write(f"the job: {full:.0f} tokens/s alone, {part:.0f} beside online traffic: {part / full:.0%}\n")


def quantile(values: list[float], rank: float) -> float:
    """The value that this part of them are not over."""
    return sorted(values)[int(rank * len(values))]


def http(folder: Path, repeats: int, threads: int, *, is_small: bool) -> None:
    """A workload over HTTP and in `millrace bench`, in turn; medians of their speeds and of their ratio."""
    model, workload, dtype = small_work(folder) if is_small else standard_work(folder)
    requests = json.loads(workload.read_text())["requests"]
    command = [sys.executable, "-m", "jobs", "bench", str(model), str(workload), "--dtype", dtype, "--json"]
    command += ["--max-num-seqs", str(MANY_CLIENTS), "--threads", str(threads)]
    over_http, alone, spent = [], [], []
    for _ in range(repeats):
        with service(folder, model, dtype, MANY_CLIENTS, threads) as (url, pid):
            asyncio.run(_all(url, requests[:MANY_CLIENTS]))
            before = cpu_seconds(pid)
            tokens_per_s = asyncio.run(_all(url, requests))
            spent.append({name: seconds - before.get(name, 0.0) for name, seconds in cpu_seconds(pid).items()})
        over_http.append(tokens_per_s)
        bench = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        alone.append(json.loads(bench.stdout)["output_tokens_per_s"])
    ratio = statistics.median(there / here for there, here in zip(over_http, alone, strict=True))
    sys.stdout.write(
        f"over HTTP {statistics.median(over_http):.0f} tokens/s, millrace bench {statistics.median(alone):.0f}: {ratio:.0%}\n"
    )
    num_tokens = sum(request["max_tokens"] for request in requests)
    for name in sorted(spent[0]):
        each = 1e3 * statistics.median(one.get(name, 0.0) for one in spent) / num_tokens
        if each > 0.01:
            sys.stdout.write(f"  {name}: {each:.2f} ms of CPU a token\n")


def standard_work(folder: Path) -> tuple[Path, Path, str]:
    """The generation workload of `workloads.py`: its checkpoint with a tokenizer, its requests, its dtype."""
    from tests.benchmarks.workloads import VOCAB_SIZE, requests, write_dense

    write_dense(folder, 0)
    vocabulary = {f"w{token}": token for token in range(VOCAB_SIZE)}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    text: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
    }
    text |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": words}
    (folder / "model" / "tokenizer.json").write_text(json.dumps(text))
    work = requests(count=128, prompt=(16, 512), output=(16, 256), seed=0)
    (folder / "work.json").write_text(json.dumps({"kind": "generate", "name": "lognormal", "requests": work}))
    return folder / "model", folder / "work.json", "bfloat16"


def small_work(folder: Path) -> tuple[Path, Path, str]:
    """Short prompts for the demo's causal model."""
    from models.text.tokenizer import Tokenizer

    tokenizer, draw = Tokenizer.from_pretrained(CAUSAL), random.Random(2)
    work = [
        {"prompt_token_ids": tokenizer.encode(" ".join(draw.choices(WORDS, k=12))), "max_tokens": MAX_TOKENS}
        for _ in range(96)
    ]
    (folder / "work.json").write_text(json.dumps({"kind": "generate", "name": "small", "requests": work}))
    return CAUSAL, folder / "work.json", "float32"


def cpu_seconds(pid: int) -> dict[str, float]:
    """CPU seconds so far of a process and all that it started, by what they are."""
    seconds: dict[str, float] = {}
    parents, names, ticks = {}, {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().rpartition(")")
                command = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
            except OSError:  # it has ended
                continue
            fields = rest.split()
            one = int(entry.name)
            parents[one], ticks[one] = int(fields[1]), int(fields[11]) + int(fields[12])
            names[one] = command if command.startswith("ray::") else name.partition("(")[2]
    for one, count in ticks.items():
        above = one
        while above not in (0, pid):
            above = parents.get(above, 0)
        if above == pid:
            seconds[names[one]] = seconds.get(names[one], 0.0) + count / os.sysconf("SC_CLK_TCK")
    return seconds


async def _all(url: str, requests: list[dict[str, Any]]) -> float:
    """Tokens/s of these requests, so many clients at a time."""
    times, slots = Times(), asyncio.Semaphore(MANY_CLIENTS)
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(600)) as client:

        async def one(request: dict[str, Any]) -> None:
            async with slots:
                await stream(client, request["prompt_token_ids"], times, max_tokens=request["max_tokens"])

        start = time.perf_counter()
        await asyncio.gather(*map(one, requests))
        return times.num_tokens / (time.perf_counter() - start)


def main() -> None:
    """Reads what to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("fleet")
    first.add_argument("--runs", type=int, default=5)
    first.add_argument("--seconds", type=float, default=15.0)
    second = commands.add_parser("http")
    second.add_argument("--small", action="store_true")
    second.add_argument("--repeats", type=int, default=3)
    second.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.command == "fleet":
        fleet(given.runs, given.seconds)
    else:
        with tempfile.TemporaryDirectory() as name:
            http(Path(name), given.repeats, given.threads, is_small=given.small)


if __name__ == "__main__":
    main()
