"""`millrace report`: what a run did, as a page and as numbers."""

import typer

from jobs.commands.options import OutputFolder, SpecOfStorage, StorageOptions


def report(out: OutputFolder, spec: SpecOfStorage = None, storage_options: StorageOptions = None) -> int:
    """Write report.html and report.json of a run, finished or not. With --spec, inputs in an object store are shown too."""
    from jobs.report.report import write_report
    from jobs.spec.output_place import output_place

    place = output_place(out, spec, storage_options or ())
    typer.echo(write_report(place.output, input_options=place.input_options))
    return 0
