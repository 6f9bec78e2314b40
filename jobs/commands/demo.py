"""`millrace demo`: the main job, shown."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import Address


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the corpus, results and reports.")] = Path("out/demo"),
    tickets: Annotated[int, typer.Option("--tickets", min=100, help="How many rows to make.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the corpus.")] = 2026,
    address: Address = None,
) -> int:
    """Run five jobs over a made-up corpus with trained tiny models, and measure their answers against the known ones."""
    from jobs.demo.demo import run_demo

    return run_demo(out=out, num_tickets=tickets, seed=seed, address=address)
