"""Whether a worker may begin a unit: the driver says in the lease when it wants no new ones."""

import logging
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import LeaseError, OutputError
from pipelines.ledger.commit import Committer

logger = logging.getLogger(__name__)


Standing = Literal["going on", "draining", "lost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """Asks the lease of the run that `committer` writes for. Picklable."""

    committer: Committer

    def is_given(self) -> bool:
        """False once the run is draining or has lost its output folder."""
        return _standing(self.committer) == "going on"


@dataclass(frozen=True, kw_only=True, slots=True)
class PermitOfBegun:
    """The same for a unit that is begun, and may be finished while the run is draining."""

    committer: Committer

    def is_given(self) -> bool:
        """False once the run has lost its output folder."""
        return _standing(self.committer) != "lost"


def _standing(committer: Committer) -> Standing:
    """How the run stands by its lease. Where that cannot be read, committing will tell."""
    try:
        return "draining" if committer.is_draining() else "going on"
    except LeaseError:
        return "lost"
    except OutputError as error:
        logger.warning("the lease cannot be read, going on: %s", error)
        return "going on"
