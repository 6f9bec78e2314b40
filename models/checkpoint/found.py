"""A checkpoint that was found, and how it may be named on the hub."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.checkpoint.files import INDEX_FILE, weight_files

Parts = Literal["whole", "description"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundCheckpoint:
    """A checkpoint on this machine.

    `version` pins what is not a folder of the user's own: given again, on any machine, it finds the same files or fails. `weights`
    tells the weights from others without reading them: file, or "revision", to identity. `names` are the files of the place that
    was asked for, whether they are here or not. All three are empty for a local folder, whose files speak for themselves.
    """

    place: str
    folder: Path
    version: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    names: Collection[str] = ()

    def check_weights(self) -> None:
        """Says before anything is downloaded whether the place holds weights at all.

        Raises:
            CheckpointError: it does not, or its index names shards that are not there.
        """
        if self.version is not None:
            weight_files(self.place, self.names, self.folder / INDEX_FILE)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubId:
    """A repository of the hub and one of its branches, tags or commits."""

    repo: str
    revision: str
