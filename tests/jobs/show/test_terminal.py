"""Names, labels and messages of strangers on a terminal: real commands, whose output holds no byte that one would obey."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import yaml

from jobs.show.progress import progress_display
from jobs.show.terminal import TerminalText, drawing_on, escape_standard_streams, escaped, in_a_line
from pipelines.ledger.progress import Progress
from pipelines.units.listing import PassedOver
from tests.helpers.models.odd_checkpoints import copied

CheckpointMaker = Callable[..., Path]

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\r"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PATIENCE_S = 240.0


def said(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command; its output is UTF-8 without a character that a terminal obeys."""
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
    texts = [stream.decode("utf-8") for stream in (done.stdout, done.stderr)]
    for text in texts:
        assert OBEYED.findall(text) == []
    return subprocess.CompletedProcess(command, done.returncode, *texts)


@pytest.fixture
def evil_checkpoint(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    folder = copied(tiny_checkpoint("sequence-classification"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_bytes())
    config |= {"id2label": {"0": f"a{EVIL}", "1": f"b{EVIL}"}, "label2id": None, f"x{EVIL}": EVIL}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def spec(evil_checkpoint: Path, tmp_path: Path) -> Path:
    corpus = tmp_path / "in"
    corpus.mkdir()
    rows = [{"body": f"hello {row}", f"column{EVIL}": row} for row in range(20)]
    (corpus / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (corpus / f"notes{EVIL}.txt").write_text("not read")
    path = tmp_path / "spec.yaml"
    values = {
        "name": "j",
        "model": {"path": str(evil_checkpoint)},
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [str(corpus)]},
        "output": {"path": str(tmp_path / "out")},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow
def test_plan_shows_escapes_of_names_of_files(spec: Path) -> None:
    done = said("plan", spec)
    assert done.returncode == 0, done.stderr
    assert r"notes\x1b]0;owned\x07" in done.stdout


@pytest.mark.cluster
def test_run_check_and_report_show_escapes(spec: Path, tmp_path: Path) -> None:
    done = said("run", spec, "--address", ray.get_runtime_context().gcs_address)
    assert done.returncode == 0, done.stderr
    assert r"notes\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e" in done.stderr
    assert said("report", tmp_path / "out").returncode == 0
    (tmp_path / f"out/data/part-{EVIL.strip()}.parquet").write_bytes(b"")
    checked = said("check", tmp_path / "out")
    assert checked.returncode == 1
    assert r"\x1b]0;owned\x07" in checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", pytest.param("run", marks=pytest.mark.faults)])
def test_an_error_about_a_column_or_a_value_shows_escapes(spec: Path, evil_checkpoint: Path, command: str) -> None:
    done = said(command, spec, "--set", "task.text='{{ nosuch }}'")
    assert done.returncode == 2
    assert r"column\x1b]0;owned\x07" in done.stderr
    (evil_checkpoint / "config.json").write_text(json.dumps({"model_type": EVIL}))
    done = said(command, spec)
    assert done.returncode == 2
    assert "model_type was" in done.stderr


@pytest.mark.cluster("own")
def test_serve_shows_escapes_of_a_checkpoint_that_it_refuses(evil_checkpoint: Path) -> None:
    (evil_checkpoint / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {EVIL: 1}}))
    done = said("serve", evil_checkpoint)
    assert done.returncode == 2
    assert "special or added tokens cannot be read" in done.stderr


def test_a_traceback_shows_escapes() -> None:
    code = f"from jobs.boundary import at_boundary\ndef f(): raise KeyError({EVIL!r} * 2)\nclass E(Exception): pass\n"
    code += f"def g(): raise E({EVIL!r})\nat_boundary(g)()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert rb"E: \x1b]0;owned\x07" in done.stderr
    assert OBEYED.findall(done.stderr.decode()) == []


def test_line_ends_tabs_and_letters_stay() -> None:
    assert escaped("a\tb\nÄ日本語 👩‍👩‍👧 e\u0301") == "a\tb\nÄ日本語 👩‍👩‍👧 e\u0301"
    assert escaped("\x1b[2J\r\x85\u2066\udcff") == r"\x1b[2J\r\x85\u2066\udcff"
    assert in_a_line("a\tb\n") == r"a\tb\n"


def test_a_stream_is_wrapped_once_and_can_be_drawn_on(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    escape_standard_streams()
    escape_standard_streams()
    assert isinstance(sys.stderr, TerminalText)
    assert drawing_on(sys.stderr) is before
    assert drawing_on(before) is before
    sys.stderr.write("\x1b[2J")
    sys.stderr.close()
    assert capsys.readouterr().err == r"\x1b[2J"


def all_of(master: int) -> str:
    """What was written to a terminal so far."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(master, 1 << 16):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_the_live_line_is_drawn_and_file_names_in_it_are_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, while other lines go to stderr."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", TerminalText(terminal))
        passed_over = PassedOver(num_files=1, examples=(f"notes{EVIL}.txt",))
        with progress_display(sys.stderr) as show:
            show(Progress(phase="planning", passed_over=passed_over))
            sys.stderr.write(f"said {EVIL}\n")
        terminal.flush()
        drawn = all_of(master)
    os.close(master)
    assert "\x1b[" in drawn  # it moves the cursor
    assert r"notes\x1b]0;owned\x07" in drawn
    assert r"said \x1b]0;owned\x07" in drawn
    for obeyed in ("\x1b]0;", "\x07", "\x1b[2J", "\x9b", "\x7f", "\u202e"):
        assert obeyed not in drawn
