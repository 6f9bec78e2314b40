"""Standard streams of a real process, closed, full or left by their reader: its status is its own."""

import os
import subprocess
import sys

import pytest

SAYING = """
import os, sys, warnings
from jobs.show.standard_streams import secure_standard_streams

secure_standard_streams()
opened = os.open(os.devnull, os.O_RDONLY)
sys.stderr.write("planning the input\\n" * 3000)
print("told", file=sys.stderr, flush=True)
warnings.warn("look out")
raise SystemExit(3 if opened > 2 and sys.stdout is not None else 1)
"""


def status_of(redirection: str) -> int:
    shell = f'exec "$0" -c "$1" {redirection}'
    return subprocess.run(["sh", "-c", shell, sys.executable, SAYING], capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "redirection",
    ["", "2>&-", "2>/dev/full", ">&-", ">/dev/full", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"],
)
def test_the_status_is_the_commands_own(redirection: str) -> None:
    assert status_of(redirection) == 3


def test_a_reader_that_left_changes_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-c", SAYING], stderr=writing, check=False)
    os.close(writing)
    assert ended.returncode == 3


def test_what_can_be_written_is_written_at_once() -> None:
    said = subprocess.run([sys.executable, "-c", SAYING], capture_output=True, text=True, check=False).stderr
    assert said.startswith("planning the input\n" * 3000 + "told\n")
    assert "UserWarning: look out" in said


def test_text_that_is_no_unicode_is_written_with_escapes() -> None:
    code = SAYING.replace('"told"', '"\\udcff\\u00e9"')
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr
    assert b"\\udcff\xc3\xa9\n" in said
