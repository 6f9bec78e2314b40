"""`millrace check`: is an output folder what its receipts say? With `--repair`, what is not is made ready to be computed again."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.boundary import FAILED
from jobs.commands.options import OutputFolder, SpecOfStorage, StorageOptions

if TYPE_CHECKING:
    from pipelines.io.outputs import Store

Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Forget the receipts of damaged units, which the next run computes again, and remove files that no receipt names.",
    ),
]


def check(
    out: OutputFolder, spec: SpecOfStorage = None, storage_options: StorageOptions = None, repair: Repair = False
) -> int:
    """Verify an output folder: receipts, sizes and hashes, every planned unit once, nothing beside. Exit status 1 if anything is wrong."""
    from jobs.spec.output_place import output_place
    from pipelines.io.open_output import open_store
    from pipelines.ledger.check import check_run

    store = open_store(output_place(out, spec, storage_options or ()).output)
    if repair:
        return _repair(store)
    flaws = check_run(store)
    for flaw in flaws:
        typer.echo(str(flaw))
    if not flaws:
        typer.echo(f"{store.location}: every row is there once, every file is as its receipt says")
    elif any(flaw.removable for flaw in flaws):
        typer.echo(
            "--repair forgets the receipts of damaged units and removes what no receipt names; then run the job again"
        )
    return FAILED if flaws else 0


def _repair(store: "Store") -> int:
    from pipelines.ledger.repair import repair_run

    repaired = repair_run(store)
    for flaw in repaired.flaws:
        typer.echo(str(flaw))
    for name in repaired.removed:
        typer.echo(f"removed {name}")
    if not repaired.remaining:
        typer.echo(f"{store.location}: every row is there once, every file is as its receipt says")
    elif any(flaw.unit is not None for flaw in repaired.remaining):
        typer.echo("run the job again to compute what is missing")
    return FAILED if repaired.remaining else 0
