"""The `millrace` command: its subcommands, each in a file of its own under `jobs.commands`.

Those files import what they need when they run, so that `millrace --help` takes a fraction of a second. A command returns its exit
status and may raise; `jobs.boundary` says what becomes of that. To add one, write `jobs/commands/NAME.py` and list it below.
"""

import contextlib
import os
import sys
import threading
from typing import Annotated, Final

import typer

from jobs.boundary import INTERRUPTED, at_boundary
from jobs.commands.bench import bench
from jobs.commands.calibrate import calibrate
from jobs.commands.check import check
from jobs.commands.compare import compare
from jobs.commands.demo import demo
from jobs.commands.plan import plan
from jobs.commands.report import report
from jobs.commands.retry import retry
from jobs.commands.run import run
from jobs.commands.serve import serve
from jobs.commands.submit import submit
from jobs.show.standard_streams import secure_standard_streams

LINGER_S: Final = 1.0

app = typer.Typer(name="millrace", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"millrace {version('millrace')}")
        raise typer.Exit


@app.callback()
def millrace(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distributed batch inference on Ray: a corpus in, labelled rows out."""


for command in (run, retry, submit, serve, plan, calibrate, check, report, compare, bench, demo):
    app.command()(at_boundary(command))


def main() -> None:
    """The console script."""
    secure_standard_streams()
    try:
        app()
    except SystemExit as ended:
        _end_soon(ended)
        raise


def _end_soon(ended: SystemExit) -> None:
    """All is said and done. What is still stuck in a thread, or in Ray's own clearing away, does not keep the process; and where an
    interrupt found Ray half connected, that clearing away would abort it."""
    status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if status == INTERRUPTED:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)
    timer = threading.Timer(LINGER_S, os._exit, (status,))
    timer.daemon = True
    timer.start()
