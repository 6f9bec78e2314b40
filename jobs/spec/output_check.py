"""What can be known to be wrong with a job's output before anything starts: its URL, what that needs, and whether it can be reached.

Reads, and writes nothing. What may be better in a moment, such as a store that does not answer, is left to the run.
"""

import logging
import os
from pathlib import Path

from jobs.errors import SpecError
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.job import LoadedSpec
from jobs.spec.model_check import problems_at
from pipelines.errors import OutputError
from pipelines.io.inputs import is_remote
from pipelines.io.open_output import open_store
from pipelines.job import OutputSpec
from pipelines.ledger.run_record import RUN

logger = logging.getLogger(__name__)

OUTPUT: KeyPath = ("output", "path")


def check_output(spec: LoadedSpec) -> None:
    """Opens the output as a run would, and looks for an earlier run there.

    Raises:
        SpecError: its URL is of another kind, lacks a package, credentials or a bucket, or the folder cannot be made.
    """
    with problems_at(spec.places, OUTPUT):
        store = open_store(spec.job.output)
    try:
        store.read(RUN)
    except OutputError as error:
        if not _may_pass(error.__cause__):
            text = " ".join(f"{error}{_remedy(error, spec.job.output)}".split())  # S3's client writes several lines
            raise SpecError([spec.places.problem(OUTPUT, text)]) from error
        logger.warning("output.path: %s", error)
    if not is_remote(store.location):
        fault = _fault_of_folder(Path(store.location))
        if fault:
            raise SpecError([spec.places.problem(OUTPUT, fault)])


def _may_pass(cause: BaseException | None) -> bool:
    """Whether another attempt could find something else: no connection, no answer, too much at once."""
    if isinstance(cause, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        return False
    bases = {base.__name__ for base in type(cause).__mro__}  # botocore is there only where s3fs is
    return isinstance(cause, OSError) or not bases.isdisjoint(("HTTPClientError", "ConnectionError"))


def _remedy(error: OutputError, output: OutputSpec) -> str:
    if isinstance(error.__cause__, ImportError):
        return " (pip install s3fs)"
    if is_remote(output.path):
        return "; check the URL, and output.storage_options"
    return ""


def _fault_of_folder(folder: Path) -> str:
    """Why a folder cannot be written to or made; empty if it can."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        return f"{there} is a file; give a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written to; give another folder, or change its permissions"
    return ""
