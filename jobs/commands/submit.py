"""`millrace submit`: a job on a cluster that runs somewhere else."""

import sys
from typing import Annotated

import typer

from jobs.commands.options import Limit, Overrides, SpecFile


def submit(
    spec: SpecFile,
    address: Annotated[
        str, typer.Option("--address", metavar="URL", help="The cluster's dashboard, such as http://127.0.0.1:8265.")
    ],
    limit: Limit = None,
    overrides: Overrides = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the job's log and wait for its end.")
    ] = True,
) -> int:
    """Hand a job to a Ray cluster, where Millrace is installed too, and follow it. The exit status is the job's.

    Paths are read on the cluster's machines. A token is taken from RAY_AUTH_TOKEN with RAY_AUTH_MODE=token. Ctrl-C leaves the job running.
    """
    from jobs.submission import Submission
    from jobs.submission import submit as hand_over

    def say(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    submission = Submission.of(spec, overrides=overrides or (), limit=limit)
    return hand_over(submission, address=address, say=say, follows=follow)
