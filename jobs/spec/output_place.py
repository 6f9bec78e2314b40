"""Where a run's output is and how its storage is reached, for commands that are given the folder:
`check`, `report`, `compare`, `retry`.

Options come from the job's spec, from `--storage-option KEY=VALUE`, or from the environment, as
the storage's fsspec package reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import SpecError, UsageError
from jobs.spec.document.places import document_of
from jobs.spec.job import load_spec
from pipelines.job import Job, OutputSpec
from pipelines.task_base.judged import Truth


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPlace:
    """An output folder, and the job of the spec that was given, if any."""

    output: OutputSpec
    given: Job | None = None

    @property
    def input_options(self) -> Mapping[str, Any]:
        """The storage options of the run's input."""
        return {} if self.given is None else self.given.input.storage_options

    @property
    def truth(self) -> Truth | None:
        """The column that reports hold the results against."""
        return None if self.given is None else self.given.truth


def output_place(out: str, spec: Path | None, given: Sequence[str]) -> OutputPlace:
    """The folder `out` with the storage options of the job in `spec`, and those that were given as KEY.KEY=VALUE, which go before them.

    Raises:
        SpecError: the spec is wrong.
        UsageError: an option is not written so, or `out` is on this machine, where there is nothing to set.
    """
    job = None if spec is None else load_spec(spec).job
    options = {} if job is None else job.output.storage_options
    if given and "://" not in out:
        raise UsageError(
            f"--storage-option {given[0]}: {out} is a folder of this machine, whose storage has no options"
        )
    return OutputPlace(output=OutputSpec(path=out, storage_options=_with(options, given)), given=job)


def _with(options: Mapping[str, Any], given: Sequence[str]) -> Mapping[str, Any]:
    """The options with some set anew, by the rules of `--set`."""
    try:
        return document_of(options, "--storage-option", given).values
    except SpecError as error:
        allowed = "an option is written KEY.KEY=VALUE, such as client_kwargs.endpoint_url=http://127.0.0.1:9000"
        raise UsageError(f"--storage-option {' '.join(key.partition('=')[0] for key in given)}: {allowed}") from error
