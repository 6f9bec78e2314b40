"""`millrace calibrate`: from which score on a cascade's answers are right often enough."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from jobs.boundary import FAILED, complain
from jobs.commands.options import Limit, Overrides, SpecFile, today
from pipelines.cluster.interrupts import interrupts
from pipelines.cluster.last_resort import LastResort

Truth = Annotated[
    str | None,
    typer.Option(
        "--truth", metavar="COLUMN", help="The column of the input that says what is right. Default: report.truth."
    ),
]
Accuracy = Annotated[
    float,
    typer.Option(
        "--accuracy",
        min=0.0,
        max=1.0,
        help="What share of the answers that a model keeps is to be right, such as 0.95.",
    ),
]
Confidence = Annotated[
    float, typer.Option("--confidence", min=0.5, max=0.999999, help="How sure that is to be, for all bounds together.")
]
Rows = Annotated[int, typer.Option("--rows", min=1, metavar="N", help="How many rows of the input to draw.")]


def calibrate(
    spec: SpecFile,
    accuracy: Accuracy,
    truth: Truth = None,
    confidence: Confidence = 0.95,
    rows: Rows = 1000,
    limit: Limit = None,
    overrides: Overrides = None,
) -> int:
    """Find the bounds of a cascade (until: {score: ...}) on labelled rows of its input, in this process. Writes nothing.

    Exit status 1 if there is no bound that the rows prove.
    """
    with interrupts(LastResort(complain)):
        return _calibrate(spec, accuracy, truth, confidence, rows, limit, overrides or ())


def _calibrate(
    path: Path,
    accuracy: float,
    truth: str | None,
    confidence: float,
    num_rows: int,
    limit: int | None,
    overrides: Sequence[str],
) -> int:
    from jobs.show.calibration import calibration_text
    from jobs.spec.cascade import truth_to_calibrate_with
    from jobs.spec.job import EVERYWHERE, load_spec
    from jobs.spec.placed_errors import placed_errors
    from jobs.spec.preflight import check_before_run
    from pipelines.cascade.calibrate import Wanted, calibrate

    loaded = load_spec(path, overrides=overrides, limit=limit, checks=EVERYWHERE)
    column = truth_to_calibrate_with(loaded.job, truth)
    found = check_before_run(loaded, today=today())
    with closing(found), placed_errors(loaded):
        calibration = calibrate(
            found.opened.dated_job,
            found.preparers,
            found.opened.sources,
            truth=column,
            wanted=Wanted(accuracy=accuracy, confidence=confidence),
            num_rows=num_rows,
        )
    typer.echo(calibration_text(calibration, column))
    return 0 if calibration.is_complete else FAILED
