"""What a run shows while it runs."""

import io
from dataclasses import replace

import pytest

from jobs.show.progress import duration, live_line, memory_line, plain_line, progress_display
from models.engine.memory import MemoryPlan
from pipelines.ledger.progress import Progress
from pipelines.units.listing import PassedOver

RUNNING = Progress(
    phase="running",
    rows_done=1500,
    rows_total=6000,
    rows_failed=12,
    rows_resumed=500,
    units_done=3,
    units_total=12,
    units_resumed=1,
    prompt_tokens=30_000,
    completion_tokens=10_000,
    seconds=20.0,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_line_says_rows_speed_failures_and_time_left() -> None:
    assert plain_line(RUNNING) == "1,500/6,000 rows (25%)  2,000 tokens/s  12 failed  ETA 1 min 30 s"


def test_what_was_cached_is_told_beside_what_was_computed() -> None:
    line = plain_line(replace(RUNNING, cached_tokens=18_600))
    assert line == "1,500/6,000 rows (25%)  1,070 tokens/s + 930 cached  12 failed  ETA 1 min 30 s"


def test_rows_in_flight_stand_apart_from_those_that_are_done_and_count_for_the_time_left() -> None:
    """In 20 s this run has committed 1,000 rows of its own and answered 500 more; 4,000 are left."""
    progress = replace(RUNNING, rows_in_flight=500)
    assert plain_line(progress).startswith("1,500/6,000 rows (25%) + 500 in flight  ")
    assert progress.eta_s == pytest.approx(4000 / (1500 / 20))
    assert progress.rows_per_s == RUNNING.rows_per_s
    assert replace(progress, rows_done=0, rows_resumed=0).eta_s == pytest.approx(5500 / (500 / 20))
    assert live_line(progress, width=140).plain.startswith("━" * 24)


def test_states_that_are_kept_are_part_of_the_memory() -> None:
    memory = MemoryPlan(num_shards=1, weights_bytes=8_000, cache_bytes=2_000, num_tokens=640, num_seqs=4)
    assert memory_line(memory).endswith("which holds 640 tokens of 4 sequences")
    assert memory_line(replace(memory, num_snapshots=7)).endswith("640 tokens of 4 sequences and 7 states of prefixes")


def test_speed_and_time_left_count_this_run_alone() -> None:
    assert RUNNING.rows_per_s == 50.0
    assert RUNNING.eta_s == 90.0
    assert replace(RUNNING, rows_resumed=1500).eta_s is None


def test_trouble_is_on_the_line() -> None:
    line = plain_line(replace(RUNNING, engine_restarts=2, units_failed=1, phase="draining"))
    assert line.endswith("12 failed  1 units unreadable  2 engine restarts  finishing what is in flight")


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(phase="planning"), "planning the input"),
        (Progress(phase="planning", rows_done=12_000), "planning: 12,000 rows found"),
        (
            Progress(phase="planning", passed_over=PassedOver(num_files=9, examples=("a.txt", "b/c"))),
            "planning the input; 9 files passed over for their endings (a.txt, b/c, ...)",
        ),
        (Progress(phase="starting", rows_total=10, rows_done=5), "starting engines, 5/10 rows (50%) committed so far"),
        (Progress(phase="running", rows_total=0), "0/0 rows (100%)  - tokens/s  0 failed  ETA -"),
        (
            Progress(phase="running", rows_total=10, rows_done=5, rows_resumed=5, units_done=1, seconds=9.0),
            "5/10 rows (50%)  - tokens/s  0 failed  ETA -",
        ),
        (
            Progress(phase="running", rows_total=9000, rows_done=4000, prompt_tokens=40_000, seconds=0.001),
            "4,000/9,000 rows (44%)  - tokens/s  0 failed  ETA -",
        ),
        (
            Progress(phase="running", rows_total=4, rows_done=2, prompt_tokens=50, seconds=200.0),
            "2/4 rows (50%)  0.25 tokens/s  0 failed  ETA 3 min 20 s",
        ),
    ],
)
def test_a_speed_is_shown_once_there_is_one_to_tell(progress: Progress, line: str) -> None:
    assert plain_line(progress) == line


def test_without_a_terminal_a_line_comes_every_30_seconds_and_at_a_new_phase() -> None:
    stream, clock = io.StringIO(), Clock()
    with progress_display(stream, clock=clock) as show:
        show(Progress(phase="planning"))
        show(RUNNING)
        clock.now += 29.0
        show(replace(RUNNING, rows_done=3000))
        clock.now += 1.0
        show(replace(RUNNING, rows_done=4500))
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "planning the input",
        "1,500/6,000 rows (25%)",
        "4,500/6,000 rows (75%)",
    ]
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_the_line_is_rewritten_in_place() -> None:
    stream = Terminal()
    with progress_display(stream) as show:
        show(RUNNING)
    assert "1,500/6,000 rows (25%)" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_bar_takes_the_room_that_the_text_leaves() -> None:
    assert live_line(RUNNING, width=120).plain.startswith("━" * 24 + "  1,500/6,000")
    assert live_line(RUNNING, width=80).plain.startswith("━" * 12 + "  1,500/6,000")
    assert live_line(RUNNING, width=60).plain == plain_line(RUNNING)
    assert live_line(Progress(phase="planning"), width=120).plain == "planning the input"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (59.6, "1 min 00 s"), (3599.0, "59 min 59 s"), (7320.0, "2 h 02 min")],
)
def test_durations_are_written_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
