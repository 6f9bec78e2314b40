"""Processes of a cluster that this process started are found by what they write, whatever they are called and whoever their parent is."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.cluster.leftovers import end_leftovers

WRITING = "import sys; file = open(sys.argv[1], sys.argv[2]); print('ready', flush=True); sys.stdin.read()"


def start(path: Path, mode: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_those_that_write_into_the_session_of_this_process_are_ended(tmp_path: Path) -> None:
    ours, others = (tmp_path / "ray" / f"session_2026_{pid}" / "logs" for pid in (os.getpid(), 1))
    for folder in (ours, others):
        folder.mkdir(parents=True)
        (folder / "agent.log").touch()
    left = start(ours / "agent.log", "w")
    reader, stranger = start(ours / "agent.log", "r"), start(others / "agent.log", "w")
    with (ours / "driver.log").open("w"):
        end_leftovers(str(tmp_path))
    assert left.wait(10) == -9
    assert (reader.poll(), stranger.poll()) == (None, None)
    for process in (left, reader, stranger):
        process.communicate()
