"""The engines of a run: those of each step of a cascade, or of the one step there is."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.engine.load import EngineLoad
from actors.engine.owner import ReplicaOwner
from actors.engine.sizing import Bounds
from pipelines.graph.graph import Fleet


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleets:
    """The owners of each step's engines."""

    owners: tuple[ReplicaOwner, ...]

    @property
    def has_lost_one(self) -> bool:
        """Whether an engine is gone that Ray will not restart: it could not be made."""
        return any(owner.has_lost_one for owner in self.owners)

    @property
    def loads(self) -> Sequence[EngineLoad]:
        """What the engines last said of their calls; of a cascade those of the last step, whose answers are for good."""
        return self.owners[-1].loads

    def size_within(self, bounds: Sequence[Bounds]) -> tuple[Fleet, ...]:
        """Has each step's engines, from now on, as many as have something to do within its bounds."""
        for owner, each in zip(self.owners, bounds, strict=True):
            owner.size_within(each)
        return tuple(Fleet(prefix=owner.prefix, bounds=each) for owner, each in zip(self.owners, bounds, strict=True))

    def end(self) -> None:
        """Lets go of all engines, for good."""
        for owner in self.owners:
            owner.end()
