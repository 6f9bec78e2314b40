"""`millrace check`: is an output folder what its receipts say?"""

from jobs.boundary import FAILED
from jobs.commands.options import OutputFolder


def check(out: OutputFolder) -> int:
    """Verify an output folder: receipts, sizes and hashes, every planned unit once. Exit status 1 if anything is wrong."""
    import typer

    from pipelines.check import check_run
    from pipelines.job import OutputSpec
    from pipelines.store import open_store

    store = open_store(OutputSpec(path=out))
    flaws = check_run(store)
    for flaw in flaws:
        typer.echo(str(flaw))
    if not flaws:
        typer.echo(f"{store.location}: every row is there once, every file is as its receipt says")
    return FAILED if flaws else 0
