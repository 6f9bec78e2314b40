"""`millrace report`: what a run did, as a page and as numbers."""

from jobs.commands.options import OutputFolder


def report(out: OutputFolder) -> int:
    """Write report.html and report.json of a run, finished or not."""
    import typer

    from jobs.report import write_report
    from pipelines.job import OutputSpec

    typer.echo(write_report(OutputSpec(path=out)))
    return 0
