"""Errors of a run's beginning at the key of the spec that causes them.

An error of `pipelines` says which key, file or column it is about (`pipelines.errors`); where that stands in the spec is known here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import SpecError
from jobs.spec.document.key_paths import KeyPath, key_path
from jobs.spec.job import LoadedSpec
from models.errors import ConfigError
from pipelines.errors import PlanError, SourceError, TaskError
from pipelines.units.overlap import entry_of

PATHS: KeyPath = ("input", "paths")
ENGINE: KeyPath = ("engine",)


@contextmanager
def placed_errors(spec: LoadedSpec) -> Iterator[None]:
    """What only planning and probing find out, such as a column that no row of JSONL has, as a `SpecError` at the key that caused it."""
    try:
        yield
    except TaskError as error:
        raise SpecError([spec.places.problem(key_path(error.place), error.message)]) from error
    except ConfigError as error:  # the checkpoint's own was read before
        raise SpecError([spec.places.problem(ENGINE, str(error))]) from error
    except PlanError as error:
        raise SpecError([spec.places.problem(_key_of(error, spec), str(error))]) from error


@contextmanager
def problems_of_input(spec: LoadedSpec) -> Iterator[None]:
    """What is wrong with the input at the one of its paths that the error is about, or at all of them."""
    try:
        yield
    except PlanError as error:
        raise SpecError([spec.places.problem(_key_of(error, spec), str(error))]) from error
    except SourceError as error:
        raise SpecError([spec.places.problem(PATHS, str(error))]) from error


def _key_of(error: PlanError, spec: LoadedSpec) -> KeyPath:
    """The key that is wrong: the one that the error carries, the first that names a column it misses, or that of its file."""
    if error.place is not None:
        return key_path(error.place)
    named = next((key for key, column in spec.named_columns if column in error.missing_columns), None)
    if named is not None:
        return named
    entry = None if error.path is None else entry_of(error.path, spec.job.input.paths)
    return PATHS if entry is None else (*PATHS, entry)
