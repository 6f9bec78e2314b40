"""The names of a unit's files: `part-00000000-e2-3fa94c21.parquet` is unit 0 as a run with epoch 2 computed it, and begins its hash.

A name belongs to one epoch of the lease and to one content. So whatever is written late, by a run that has lost its lease or by a second
attempt of the same run, is either the very same bytes or a file of another name: no file that a receipt names is ever written again.
Sorted, names are in the order of units.

Versions before wrote `part-00000000.parquet`, which has no epoch; here it has epoch 0. See docs/decisions/0015.
"""

import re
from dataclasses import dataclass

from pipelines.job import OutputFormat

_NAME = re.compile(
    r"part-(?P<unit>[0-9]{8,15})(?:-e(?P<epoch>[1-9][0-9]{0,8})-(?P<digest>[0-9a-f]{8}))?\.(?P<ending>[a-z]+)"
)
MAX_EPOCH = 10**9 - 1
DIGEST_DIGITS = 8


def ending_of(format: OutputFormat) -> str:
    """The ending of the files that hold results of this format."""
    return "parquet" if format == "parquet" else "jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartName:
    """The parts of a file name, without its folder. `digest` is the beginning of the content's SHA-256, in hexadecimal digits; empty for
    epoch 0."""

    unit: int
    epoch: int
    digest: str
    ending: str

    @classmethod
    def of(cls, name: str) -> "PartName | None":
        """Reads a file name; None for one that a run does not write."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        epoch, digest = int(match["epoch"] or 0), match["digest"] or ""
        found = cls(unit=int(match["unit"]), epoch=epoch, digest=digest, ending=match["ending"])
        return found if str(found) == name else None

    @classmethod
    def of_key(cls, unit: int, key: int, ending: str) -> "PartName":
        """The name whose `key` this is."""
        epoch = key >> 32
        return cls(unit=unit, epoch=epoch, digest=f"{key & 0xFFFFFFFF:08x}" if epoch else "", ending=ending)

    def __str__(self) -> str:
        tag = f"-e{self.epoch}-{self.digest}" if self.epoch else ""
        return f"part-{self.unit:08d}{tag}.{self.ending}"

    @property
    def key(self) -> int:
        """Epoch and digest as one number of 62 bits, which tells files of one unit apart."""
        return self.epoch << 32 | int(self.digest or "0", 16)
