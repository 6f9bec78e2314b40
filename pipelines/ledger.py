"""The ledger of a run: what its output folder holds, which units are committed, and who may write.

On the driver:

    fingerprint = fingerprint_of(job, files)
    with Ledger.open(job, fingerprint) as ledger:                  # takes the lease, checks the fingerprint, sweeps tmp/
        record = ledger.record or ledger.write_plan(lambda sink: plan_units(files, ..., sink=sink))
        survey = ledger.survey()                                    # which units need not be computed again
        for unit in ledger.pending_units(survey): ...               # streams
        committer = ledger.committer()                              # goes to the workers: committer.commit(finished) -> Receipt
        ledger.lease.check(); ledger.lease.set_draining()
        ledger.write_unreadable(unreadable_units)

The layout is that of section 4 of the design; see `pipelines.receipts` for names, `pipelines.run_record` for `run.json`,
`pipelines.lease` for `lease.json`, `pipelines.check` for verifying all of it. `store.create`d files aside, everything is written whole.
"""

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.commit import Committer
from pipelines.errors import FingerprintError
from pipelines.fingerprint import differences
from pipelines.job import Job
from pipelines.json_values import dump_json
from pipelines.lease import EXPIRY_S, HEARTBEAT_S, Lease
from pipelines.planning import Plan, Sink
from pipelines.receipts import (
    DATA,
    ERRORS,
    FOLDERS,
    RECEIPTS,
    Receipt,
    Totals,
    data_name,
    errors_name,
    iter_receipts,
    totals_with,
    unit_of,
)
from pipelines.run_record import RUN, RunRecord, read_record
from pipelines.store import Store, open_store
from pipelines.unit_table import iter_units, write_units
from pipelines.units import Unit, UnreadableUnit

logger = logging.getLogger(__name__)

UNITS = "units.parquet"
UNREADABLE = f"{ERRORS}/units.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Which units are committed [units], and the sums of their receipts."""

    is_committed: npt.NDArray[np.bool_]
    totals: Totals


class Ledger:
    """The ledger of the run that this process drives. `record` is None until the plan is written."""

    def __init__(
        self, job: Job, fingerprint: Mapping[str, Any], store: Store, lease: Lease, record: RunRecord | None
    ) -> None:
        self._job = job
        self._fingerprint = fingerprint
        self.store = store
        self.lease = lease
        self.record = record

    @classmethod
    def open(
        cls,
        job: Job,
        fingerprint: Mapping[str, Any],
        *,
        heartbeat_s: float = HEARTBEAT_S,
        expiry_s: float = EXPIRY_S,
    ) -> "Ledger":
        """Takes the output folder over, new or with a run of the same fingerprint in it.

        Raises:
            LeaseError: another run holds it.
            FingerprintError: it holds a run of something else.
            OutputError: it cannot be written.
            PlanError: results cannot be written to a place of this kind.
        """
        store = open_store(job.output)
        store.prepare(FOLDERS)
        lease = Lease.take(store, heartbeat_s=heartbeat_s, expiry_s=expiry_s)
        try:
            record = _matching_record(store, fingerprint)
            store.sweep()
        except BaseException:
            lease.release()
            raise
        return cls(job, fingerprint, store, lease, record)

    def write_plan(self, make: Callable[[Sink], Plan], *, date: dt.date | None = None) -> RunRecord:
        """Has `make` plan into the table of units, and completes the plan by writing `run.json`. `date` is the run's, from now on.

        Raises:
            PlanError: from `make`; nothing is planned then.
            OutputError: the plan cannot be written.
        """
        with self.store.write_with(UNITS) as path, write_units(path) as sink:
            plan = make(sink)
        self.lease.check()
        self.record = RunRecord.of(self._job, self._fingerprint, plan, date)
        self.store.write(RUN, self.record.to_json())
        return self.record

    def survey(self) -> Survey:
        """Finds the committed units: those whose receipt names the sizes that their files have."""
        assert self.record is not None, "a run is surveyed once it is planned"
        num_units = self.record.plan.num_units
        data_sizes = _sizes(self.store, DATA, num_units, lambda unit: data_name(unit, self._job.output.format))
        errors_sizes = _sizes(self.store, ERRORS, num_units, errors_name)
        is_committed = np.zeros(num_units, dtype=np.bool_)
        totals = Totals()
        for receipt in iter_receipts(self.store):
            if receipt.unit < num_units and _is_trusted(receipt, data_sizes, errors_sizes):
                is_committed[receipt.unit] = True
                totals = totals_with(totals, receipt)
        return Survey(is_committed=is_committed, totals=totals)

    def pending_units(self, survey: Survey) -> Iterator[Unit]:
        """The units that are not committed, in order, read from the plan as they are asked for."""
        with self.store.open(UNITS) as file:
            yield from (unit for unit in iter_units(file) if not survey.is_committed[unit.index])

    def committer(self) -> Committer:
        """What workers commit with."""
        return Committer(store=self.store, format=self._job.output.format, token=self.lease.token)

    def write_unreadable(self, units: Sequence[UnreadableUnit]) -> None:
        """Lists the units that could not be read in `errors/units.jsonl`, in the order of the input; the file is there if and only if there
        are any."""
        self.lease.check()
        if units:
            in_order = sorted(units, key=lambda unreadable: unreadable.unit.index)
            self.store.write(UNREADABLE, b"".join(dump_json(_unreadable_line(unit)) + b"\n" for unit in in_order))
        else:
            self.store.delete(UNREADABLE)

    def close(self) -> None:
        """Gives the output folder free."""
        self.lease.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _matching_record(store: Store, fingerprint: Mapping[str, Any]) -> RunRecord | None:
    record = read_record(store)
    if record is None:
        if next(store.sizes(RECEIPTS), None) is not None:
            raise FingerprintError(
                f"{store.location} holds receipts but no {RUN}, so what they belong to is unknown; restore it, or use a new output.path"
            )
        return None
    changed = differences(record.fingerprint, fingerprint)
    if changed:
        raise FingerprintError(
            f"{store.location} holds a run of something else (old -> new):\n  "
            + "\n  ".join(changed)
            + "\nundo the change to go on with that run, or use a new output.path"
        )
    return record


def _sizes(store: Store, folder: str, num_units: int, name_of: Callable[[int], str]) -> npt.NDArray[np.int64]:
    """The size of each unit's file in a folder [units], -1 where there is none."""
    sizes = np.full(num_units, -1, dtype=np.int64)
    for name, size in store.sizes(folder):
        unit = unit_of(name)
        if unit is not None and unit < num_units and name_of(unit) == f"{folder}/{name}":
            sizes[unit] = size
    return sizes


def _is_trusted(receipt: Receipt, data_sizes: npt.NDArray[np.int64], errors_sizes: npt.NDArray[np.int64]) -> bool:
    found = int(data_sizes[receipt.unit]), int(errors_sizes[receipt.unit])
    if found == (receipt.data.num_bytes, receipt.errors.num_bytes):
        return True
    logger.warning("the files of unit %d are not those of its receipt; it is computed again", receipt.unit)
    return False


def _unreadable_line(unreadable: UnreadableUnit) -> dict[str, Any]:
    unit = unreadable.unit
    return {
        "unit": unit.index,
        "path": unit.path,
        "first_row": unit.first_row,
        "num_rows": unit.num_rows,
        "message": unreadable.message,
    }
