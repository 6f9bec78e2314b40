"""`millrace bench`: a workload in process, timed."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.errors import UsageError


def bench(
    model: Annotated[str, typer.Argument(help="Checkpoint: a folder, a URL or a hub id.")],
    workload: Annotated[Path, typer.Argument(help="Workload file, JSON.")],
    dtype: Annotated[str, typer.Option(help="bfloat16, float16, float32, or auto: the checkpoint's own.")] = "auto",
    quantization: Annotated[
        str | None, typer.Option(help="int8, nf4 or fp4: quantize the weights; default: as they are saved.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line and nothing else.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: one a core.")] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Sequences that run at once.")] = 256,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Tokens a step computes at most.")] = None,
    cache_bytes: Annotated[int | None, typer.Option(help="Size of the KV cache.")] = None,
) -> int:
    """Run a workload in process, without Ray, and print its speed."""
    import orjson
    import torch

    from jobs.bench import measure, read_workload
    from models.engine.options import EngineOptions

    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads was {threads}; it must be at least 1")
        torch.set_num_threads(threads)
    options = EngineOptions(
        max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, cache_bytes=cache_bytes
    )
    measured = measure(model, read_workload(workload), dtype=dtype, quantization=quantization, options=options)
    if as_json:
        typer.echo(orjson.dumps(measured).decode())
    else:
        typer.echo(
            f"{measured.output_tokens_per_s:,.0f} output tokens/s, {measured.computed_tokens_per_s:,.0f} computed in all; "
            f"{measured.prompt_tokens:,} prompt tokens, {measured.cached_tokens:,} of them cached, and "
            f"{measured.completion_tokens:,} completion tokens in {measured.wall_s:.2f} s; load {measured.load_s:.2f} s, "
            f"peak memory {measured.peak_rss_mb:,.0f} MB"
        )
    return 0
