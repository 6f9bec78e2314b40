"""Millrace against transformers on one machine, in one run: `python tests/benchmarks/against_transformers.py [FOLDER]`.

Both get the same checkpoints (see `workloads`), the same requests and the same number of threads, each in a process of its own, one after
the other, `--repeats` times in turn; medians and their ratio are printed, and written to FOLDER/results.json. transformers runs static
batches sorted by prompt length, of 32 (8 of the hybrid network): `generate` up to the longest output of a batch, classification in padded
forward passes. It holds the bfloat16 checkpoints in `--transformers-dtype`: on a CPU without bfloat16 instructions float32 is several times
as fast.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH = {"generate": 32, "classify": 32, "hybrid": 8}
CHECKPOINTS = {"generate": "model", "classify": "classifier", "hybrid": "hybrid"}
GOALS = {"generate": 8.0, "classify": 2.0, "hybrid": 4.0}


def batches(requests: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Static batches, sorted by prompt length."""
    ordered = sorted(requests, key=lambda request: len(request["prompt_token_ids"]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def transformers_generate(model: Any, batch: list[dict[str, Any]]) -> None:
    """One batch, left-padded, greedy, to the longest output asked for."""
    import torch

    width = max(len(request["prompt_token_ids"]) for request in batch)
    pads = [width - len(request["prompt_token_ids"]) for request in batch]
    ids = torch.tensor([[0] * pad + request["prompt_token_ids"] for pad, request in zip(pads, batch, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    longest = max(request["max_tokens"] for request in batch)
    model.generate(
        ids, attention_mask=mask, max_new_tokens=longest, min_new_tokens=longest, do_sample=False, pad_token_id=0
    )


def transformers_classify(model: Any, batch: list[dict[str, Any]]) -> None:
    """One batch, right-padded."""
    import torch

    width = max(len(request["prompt_token_ids"]) for request in batch)
    lengths = [len(request["prompt_token_ids"]) for request in batch]
    ids = torch.tensor(
        [request["prompt_token_ids"] + [0] * (width - n) for n, request in zip(lengths, batch, strict=True)]
    )
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    model(ids, attention_mask=mask)


def run_transformers(kind: str, folder: Path, dtype: str) -> None:
    """Measures transformers in this process and prints one JSON line."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    loader: Any = AutoModelForSequenceClassification if kind == "classify" else AutoModelForCausalLM
    step = transformers_classify if kind == "classify" else transformers_generate
    model = loader.from_pretrained(folder / CHECKPOINTS[kind], dtype=getattr(torch, dtype))
    requests = json.loads((folder / f"{kind}.json").read_text())["requests"]
    with torch.inference_mode():
        step(model, [request | {"max_tokens": 4} for request in requests[:4]])
        begun = time.perf_counter()
        for batch in batches(requests, BATCH[kind]):
            step(model, batch)
    wall_s = time.perf_counter() - begun
    prompt = sum(len(request["prompt_token_ids"]) for request in requests)
    completion = sum(request["max_tokens"] for request in requests)
    line = {"output_tokens_per_s": completion / wall_s, "total_tokens_per_s": (prompt + completion) / wall_s}
    sys.stdout.write(json.dumps(line | {"wall_s": wall_s}) + "\n")


def measured(command: list[str], threads: int) -> dict[str, float]:
    """Runs one side in a process of its own and reads its JSON line."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(folder: Path, kind: str, *, repeats: int, threads: int, dtype: str) -> dict[str, Any]:
    """Both sides in turn, `repeats` times; medians and the ratio of total time."""
    model, workload = folder / CHECKPOINTS[kind], folder / f"{kind}.json"
    ours = [sys.executable, "-m", "jobs", "bench", str(model), str(workload), "--dtype", "bfloat16", "--json"]
    theirs = [sys.executable, __file__, "--transformers", kind, "--transformers-dtype", dtype, str(folder)]
    rounds = [(measured(ours, threads), measured(theirs, threads)) for _ in range(repeats)]
    ratios = [their["wall_s"] / our["wall_s"] for our, their in rounds]
    return {
        "kind": kind,
        "threads": threads,
        "transformers_dtype": dtype,
        "millrace": rounds[len(rounds) // 2][0],
        "millrace_wall_s": statistics.median(our["wall_s"] for our, _ in rounds),
        "transformers_wall_s": statistics.median(their["wall_s"] for _, their in rounds),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "goal": GOALS[kind],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where checkpoints and workloads are kept; default: temporary"
    )
    parser.add_argument("--kinds", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--transformers-dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--transformers", choices=list(GOALS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.transformers:
        run_transformers(arguments.transformers, arguments.folder, arguments.transformers_dtype)
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    if not all((folder / f"{kind}.json").exists() for kind in GOALS):
        subprocess.run([sys.executable, str(Path(__file__).with_name("workloads.py")), str(folder)], check=True)
    results = []
    for kind in arguments.kinds:
        result = compare(
            folder,
            kind,
            repeats=arguments.repeats,
            threads=arguments.threads,
            dtype=arguments.transformers_dtype,
        )
        results.append(result)
        sys.stdout.write(
            f"{kind}: millrace {result['millrace_wall_s']:.2f} s, transformers {result['transformers_wall_s']:.2f} s, "
            f"{result['ratio']:.2f} times as fast (goal {result['goal']:g}); "
            f"millrace peak memory {result['millrace']['peak_rss_mb']:.0f} MB\n"
        )
        sys.stdout.flush()
    (folder / "results.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
