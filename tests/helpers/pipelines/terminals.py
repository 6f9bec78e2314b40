"""A terminal that goes away under the command that it shows: a window that is closed, a connection that is lost."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from tests.helpers.pipelines.killing import PATIENCE_S, wait_until

ESCAPE = b"\x1b["
"""What only a live line writes (ECMA-48, 5.4: the control sequence introducer)."""


def status_of_hung_up(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    is_ignored: bool,
    is_time: Callable[[], bool] = lambda: True,
) -> int:
    """Runs a command on a terminal of its own, which hangs up once the live line is there and it `is_time`: its exit status.

    SIGHUP goes to the command and to its group. It is ignored where `is_ignored`, as under nohup; writing fails either way.
    """
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    ignoring = "trap '' HUP; " if is_ignored else ""
    shell = f'{ignoring}exec "$@" <"$0" >"$0" 2>&1'  # what the leader of a session opens is its session's terminal
    process = subprocess.Popen(
        ["sh", "-c", shell, os.ttyname(theirs), *command], env={**env, "TERM": "xterm"}, start_new_session=True
    )
    shown = bytearray()

    def is_live() -> bool:
        with contextlib.suppress(BlockingIOError):
            shown.extend(os.read(ours, 1 << 16))
        assert process.poll() is None, bytes(shown)
        return ESCAPE in shown and is_time()

    try:
        try:
            wait_until(is_live, "the live line")
        finally:
            os.close(theirs)
            os.close(ours)
        return process.wait(PATIENCE_S)
    finally:
        process.kill()
