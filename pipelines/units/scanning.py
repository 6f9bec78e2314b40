"""The parallel half of planning: what a worker finds in a stretch of the input.

A `FileStretch` is a whole file, or a stretch of one whose format can be planned in stretches. `Scanner`
goes through stretches and says where units lie in them and what columns they hold, as their format finds
them. Its memory is bounded by a stretch, and by the longest record.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.errors import PlanError, SourceError
from pipelines.input_formats.input_format import Formats, InputFormat, Stretch, UnitsFound, UnitsWanted
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import Storage, with_retries

_MARK_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStretch:
    """A stretch of a file of a format; `file` is its number in the listing."""

    file: int
    format: str
    stretch: Stretch


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a stretch of a file holds; or the `problem` for which it cannot be planned."""

    file: int
    units: UnitsFound = field(default_factory=UnitsFound)
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanner:
    """Goes through stretches; picklable, with the formats that there are."""

    wanted: UnitsWanted
    formats: Formats = field(default_factory=lambda: FORMATS)

    def __call__(self, stretches: Sequence[FileStretch]) -> list[Finding]:
        """Scans some stretches, retrying what cannot be read."""
        return [self._scan(each) for each in stretches]

    def _scan(self, given: FileStretch) -> Finding:
        format, stretch = self.formats[given.format], given.stretch
        try:
            if not stretch.size and format.always_has_bytes(stretch.path):
                raise SourceError("the file is empty")
            return Finding(file=given.file, units=with_retries(lambda: format.scan(self.wanted, stretch)))
        except PlanError as error:
            return Finding(file=given.file, problem=str(error))
        except SourceError as error:
            fault = what_is_wrong(self.wanted.storage, format, stretch.path, stretch.size)
            return Finding(file=given.file, problem=fault or str(error))


def what_is_wrong(storage: Storage, format: InputFormat, path: str, size: int) -> str | None:
    """What a file that cannot be read is, if its first and last bytes tell."""
    num_bytes = min(size, _MARK_BYTES)
    try:
        head, tail = (storage.read(path, start, num_bytes) for start in (0, size - num_bytes))
    except SourceError:
        return None
    return format.fault(path, head, tail)
