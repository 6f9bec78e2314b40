"""The arguments that several commands share."""

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

SpecFile = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC", help="The job spec, a YAML file. Relative paths in it start from the current directory."
    ),
]
OutputFolder = Annotated[str, typer.Argument(metavar="OUT", help="The output folder of a run.")]
SpecOfStorage = Annotated[
    Path | None,
    typer.Option("--spec", metavar="SPEC", help="The job spec, for its storage options (credentials, endpoint)."),
]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="KEY.KEY=VALUE",
        help="An fsspec option of the output's storage; may be given several times, and goes before the spec's.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Take only the first N rows of the input.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="Override one key of the spec; may be given several times."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="A",
        help="The Ray cluster: local, auto or HOST:PORT. Default: RAY_ADDRESS if set, else local.",
    ),
]


def today() -> dt.date:
    """The date in UTC, which a run has everywhere alike."""
    return dt.datetime.now(dt.UTC).date()
