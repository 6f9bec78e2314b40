"""Removing from an output folder what is damaged or left over, so that a run can compute again what is missing then.

    repair_run(store) -> Repaired        # takes the lease: never under a live run

A unit whose receipt or files are damaged has its receipt removed, which is all that makes it count; the next run computes it. Files that no
receipt names are removed at once. Results of units that are whole are never touched.
"""

import logging
from dataclasses import dataclass

from pipelines.io.outputs import Store
from pipelines.ledger.check import Flaw, check_run
from pipelines.ledger.lease import Lease, ensure_owned
from pipelines.ledger.run_record import RUN

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What was found, which files were removed, and what is still to be done by a run or by hand."""

    flaws: tuple[Flaw, ...]
    removed: tuple[str, ...]
    remaining: tuple[Flaw, ...]


def repair_run(store: Store) -> Repaired:
    """Checks the output in `store` and removes what can be removed.

    Raises:
        LeaseError: a run holds the folder.
        OutputError: it cannot be read or written.
    """
    if store.read(RUN) is None:
        flaws, removed = check_run(store), []
    else:
        store.prepare(())
        with Lease.take(store) as lease:
            flaws = check_run(store)
            removed = list(dict.fromkeys(flaw.removable for flaw in flaws if flaw.removable is not None))
            for name in removed:
                ensure_owned(store, lease.token)
                store.delete(name)
                logger.info("removed %s/%s", store.location, name)
    remaining = tuple(flaw for flaw in flaws if not flaw.is_mended_so)
    return Repaired(flaws=tuple(flaws), removed=tuple(removed), remaining=remaining)
