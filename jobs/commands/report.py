"""`millrace report`: what a run did, as a page and as numbers."""

from typing import Annotated

import typer

from jobs.boundary import WRONG, complain
from jobs.commands.options import OutputFolder, SpecOfStorage, StorageOptions

Truth = Annotated[
    list[str] | None,
    typer.Option(
        "--truth",
        metavar="COLUMN",
        help="Hold the labels of the results against this column of the input, carried or not; goes before the spec's report.truth. "
        "NAME=COLUMN for one of several tasks; may be given for each.",
    ),
]


def report(
    out: OutputFolder, spec: SpecOfStorage = None, storage_options: StorageOptions = None, truth: Truth = None
) -> int:
    """Write report.html and report.json of a run, finished or not. With --spec, inputs in an object store are shown too.

    Exit status 2 if the results cannot be held against the truth, which the report then says too.
    """
    from jobs.report.report import write_report
    from jobs.spec.output_place import output_place

    place = output_place(out, spec, storage_options or ())
    written = write_report(place.output, input_options=place.input_options, truth=place.truth, given=truth or ())
    typer.echo(written.page)
    for problem in written.truth_problems:
        complain(problem)
    return WRONG if written.truth_problems else 0
