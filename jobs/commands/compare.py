"""`millrace compare`: two runs over the same rows, row by row."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from jobs.commands.options import SpecOfStorage, StorageOptions
from jobs.errors import UsageError

if TYPE_CHECKING:
    from jobs.compare.compare import Differing

OutputA = Annotated[str, typer.Argument(metavar="OUT_A", help="The output folder of a run.")]
OutputB = Annotated[
    str, typer.Argument(metavar="OUT_B", help="The output folder of another run of the same kind of task.")
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="COLUMN",
        help="Match rows by the value of a column that both runs carry; default: by file and row number. Keeps OUT_A's results in memory.",
    ),
]
Diff = Annotated[
    Path | None,
    typer.Option("--diff", metavar="FILE", help="Write every row that differs to this file, as JSON lines."),
]
Show = Annotated[int, typer.Option("--show", min=0, metavar="N", help="How many of the rows that differ to show.")]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance",
        min=0.0,
        help="For tasks that give numbers alone: how far they may be apart in a row that counts as equal.",
    ),
]


def compare(
    out_a: OutputA,
    out_b: OutputB,
    spec: SpecOfStorage = None,
    storage_options: StorageOptions = None,
    by: By = None,
    diff: Diff = None,
    show: Show = 10,
    tolerance: Tolerance = 0.0,
) -> int:
    """Compare two complete runs: agreement, Cohen's kappa, which label met which, rows that differ or that one run alone has.

    Exit status 0 whether rows differ or not; 2 if the runs cannot be compared.
    """
    from jobs.compare.compare import compare_runs
    from jobs.compare.sides import Sides
    from jobs.compare.text import comparison_text
    from jobs.spec.output_place import output_place
    from pipelines.formats.json_values import dump_json

    given, remote = storage_options or (), [out for out in (out_a, out_b) if "://" in out]
    places = [output_place(out, spec, given if out in remote or not remote else ()).output for out in (out_a, out_b)]
    sides = Sides.open(*places)
    texts: list[str] = []
    with ExitStack() as stack:
        file = None if diff is None else stack.enter_context(_written(diff))

        for part in sides.parts().values():
            shown: list[Differing] = []

            def take(row: "Differing", shown: "list[Differing]" = shown) -> None:
                if len(shown) < show:
                    shown.append(row)
                if file is not None:
                    file.write(dump_json(row.as_json()) + b"\n")

            found = compare_runs(part, by=by, tolerance=tolerance, on_difference=take)
            texts.append(comparison_text(found, shown, None if diff is None else str(diff)))
    typer.echo("\n\n".join(texts))
    return 0


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which has its name once all is written."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        file = partial.open("wb")
    except OSError as error:
        raise UsageError(
            f"--diff {path}: it cannot be written ({error.strerror}); give a file in a folder that is there"
        ) from error
    try:
        with file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
