"""How a run's progress is shown: a live line on a terminal, one plain line every 30 seconds elsewhere.

Both go to stderr; stdout is for results. Time is passed in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs.show.terminal import drawing_on, escape_standard_streams, in_a_line
from models.checkpoint.byte_text import byte_text
from models.engine.memory import MemoryPlan
from pipelines.ledger.progress import Progress, ShowProgress

PLAIN_INTERVAL_S = 30.0
MIN_BAR, MAX_BAR = 6, 24


@contextmanager
def progress_display(stream: TextIO, *, clock: Callable[[], float] = monotonic) -> Iterator[ShowProgress]:
    """Gives a function to call with every new `Progress`; the line is cleaned up when the block ends."""
    if not stream.isatty():
        yield _plain_lines(stream, clock)
        return
    console = Console(file=drawing_on(stream))
    with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
        escape_standard_streams()  # while it is live it has streams of its own in their place
        announce = _announcer(live.console.print)

        def show(progress: Progress) -> None:
            announce(progress)
            live.update(live_line(progress, width=console.width))

        yield show


def _announcer(print_line: Callable[[str], object]) -> ShowProgress:
    """Prints what an engine has done with its memory, once it is known."""
    is_said = False

    def announce(progress: Progress) -> None:
        nonlocal is_said
        if progress.memory is not None and not is_said:
            is_said = True
            print_line(memory_line(progress.memory))

    return announce


def _plain_lines(stream: TextIO, clock: Callable[[], float]) -> ShowProgress:
    """Writes a line at the first progress of a phase, and then at most every `PLAIN_INTERVAL_S`."""
    last_phase: str | None = None
    last_time = clock()
    announce = _announcer(lambda line: stream.write(f"{line}\n"))

    def show(progress: Progress) -> None:
        nonlocal last_phase, last_time
        announce(progress)
        now = clock()
        if progress.phase == last_phase and now - last_time < PLAIN_INTERVAL_S:
            return
        last_phase, last_time = progress.phase, now
        stream.write(f"{plain_line(progress)}\n")
        stream.flush()

    return show


def live_line(progress: Progress, *, width: int) -> Text:
    """The line of a terminal of `width` characters: a bar where there is room for one, then what `plain_line` says."""
    said = in_a_line(plain_line(progress))
    line = Text("", no_wrap=True, overflow="ellipsis")
    bar = min(MAX_BAR, width - len(said) - 3)
    if progress.rows_total and bar >= MIN_BAR:
        filled = bar * (progress.rows_done + progress.rows_in_flight) // progress.rows_total
        line.append("━" * filled, style="cyan").append("━" * (bar - filled), style="bright_black").append("  ")
    line.append(said)
    if progress.rows_failed:
        line.highlight_regex(r"[\d,]+ failed", style="yellow")
    return line


def plain_line(progress: Progress) -> str:
    """Rows, tokens computed a second and those that were cached, failures and the time left, as
    one line of text."""
    if progress.phase == "planning":
        beside = f"; {progress.passed_over}" if progress.passed_over.num_files else ""
        return (
            f"planning: {progress.rows_done:,} rows found{beside}"
            if progress.rows_done
            else f"planning the input{beside}"
        )
    rows = f"{progress.rows_done:,}"
    if progress.rows_total is not None:
        share = 100 * progress.rows_done // progress.rows_total if progress.rows_total else 100
        rows += f"/{progress.rows_total:,} rows ({share}%)"
    else:
        rows += " rows"
    if progress.phase == "starting":
        return f"starting engines, {rows} committed so far"
    if progress.rows_in_flight:
        rows += f" + {progress.rows_in_flight:,} in flight"
    tokens = token_speed(progress.tokens_per_s, progress.cached_tokens_per_s)
    parts = [rows, tokens, f"{progress.rows_failed:,} failed"]
    if progress.units_failed:
        parts.append(f"{progress.units_failed:,} units unreadable")
    if progress.engine_restarts:
        parts.append(f"{progress.engine_restarts:,} engine restarts")
    parts.append("finishing what is in flight" if progress.phase == "draining" else f"ETA {duration(progress.eta_s)}")
    return "  ".join(parts)


def memory_line(memory: MemoryPlan) -> str:
    """Weights, cache and what fits in, as one line of text."""
    whose = "each engine" if memory.num_shards == 1 else f"each of an engine's {memory.num_shards} shards"
    weights = f"{whose}: {byte_text(memory.weights_bytes)} of weights"
    if not memory.cache_bytes:
        return weights
    seqs = f" of {memory.num_seqs:,} sequences" if memory.num_seqs else ""
    fits = f"{memory.num_tokens:,} tokens{seqs}"
    if memory.num_snapshots:
        fits += f" and {memory.num_snapshots:,} states of prefixes"
    return f"{weights}, {byte_text(memory.cache_bytes)} of cache, which holds {fits}"


def speed(per_s: float | None) -> str:
    """`12,345`, `0.25`; a dash for what is not known."""
    if per_s is None:
        return "-"
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"


def token_speed(computed_per_s: float | None, cached_per_s: float | None) -> str:
    """`470 tokens/s + 424 cached`: tokens computed a second, and beside them those that were
    cached, if any were."""
    cached = "" if cached_per_s is None else f" + {speed(cached_per_s)} cached"
    return f"{speed(computed_per_s)} tokens/s{cached}"


def duration(seconds: float | None) -> str:
    """`1 h 02 min`, `3 min 20 s`, `8 s`; a dash for what is not known."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole} s"
