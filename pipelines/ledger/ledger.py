"""The ledger of a run: what its output folder holds, which units are committed, and who may write.

On the driver:

    fingerprint = fingerprint_of(job, files)
    with Ledger.open(job, fingerprint) as ledger:                  # takes the lease, checks the fingerprint, sweeps tmp/
        record = ledger.record or ledger.write_plan(lambda sink: plan_units(files, ..., sink=sink))
        survey = ledger.survey()                                    # which units need not be computed again
        for unit in ledger.pending_units(survey): ...               # streams
        committer = ledger.committer()                              # goes to the workers: committer.commit(finished) -> Receipt
        ledger.lease.check(); ledger.lease.set_draining()
        ledger.sweep(survey)                                        # what no receipt names
        ledger.write_unreadable(unreadable_units)

Beside this: `receipts` and `part_names` for the files of units, `run_record` for `run.json`, `planned_units` for the table of
units, `lease` for `lease.json`, `check` for verifying all of it. What is damaged is never gone on with.
"""

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.errors import FingerprintError
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import Job
from pipelines.ledger.commit import Committer
from pipelines.ledger.committed_files import CommittedFiles, FoundFiles, left_over
from pipelines.ledger.fence import write_fenced
from pipelines.ledger.fingerprint import differences, with_unit_rows
from pipelines.ledger.generation import SpecGeneration
from pipelines.ledger.lease import EXPIRY_S, HEARTBEAT_S, Lease, ensure_owned
from pipelines.ledger.part_names import ending_of
from pipelines.ledger.planned_units import UNITS, planned_units, rows_of_units, shard_of_file
from pipelines.ledger.receipts import DATA, ERRORS, FOLDERS, RECEIPTS, Totals, iter_receipts, totals_with
from pipelines.ledger.run_record import RUN, RunRecord, read_record
from pipelines.ledger.unreadable import UNREADABLE, read_unreadable, unreadable_lines
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.planning import Plan
from pipelines.units.unit_table import UnitWriter, write_units

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Survey:
    """Which units are committed [units], the sums of their receipts, and which files count: those that receipts name, also of receipts that
    come later."""

    is_committed: npt.NDArray[np.bool_]
    totals: Totals
    files: CommittedFiles


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
            DamageError: what it says of its run is not what was written.
            OutputError: it cannot be written.
            PlanError: results cannot be written to a place of this kind.
        """
        store = open_store(job.output)
        store.prepare(FOLDERS)
        lease = Lease.take(store, heartbeat_s=heartbeat_s, expiry_s=expiry_s)
        try:
            record = _matching_record(store, fingerprint)
            read_unreadable(store)
            store.sweep()
        except BaseException:
            lease.release()
            raise
        return cls(job, fingerprint, store, lease, record)

    def write_plan(
        self,
        make: Callable[[UnitWriter], Plan],
        *,
        date: dt.date | None = None,
        parts_order: tuple[int, ...] | None = None,
        ask_trial: Callable[[], tuple[float, ...] | None] = lambda: None,
    ) -> RunRecord:
        """Has `make` plan into the table of units, and completes the plan by writing `run.json`. `date` and
        `parts_order` are the run's, from now on, and so is what `ask_trial` gives, which is called last.

        Raises:
            PlanError: from `make`; nothing is planned then.
            Exception: from `ask_trial`; likewise.
            OutputError: the plan cannot be written.
        """
        with self.store.write_with(UNITS) as path:
            with write_units(path) as writer:
                plan = make(writer)
            with path.open("rb") as file:
                units = shard_of_file(UNITS, file)
            ensure_owned(self.store, self.lease.token)
        fingerprint = with_unit_rows(self._fingerprint, plan.unit_rows)
        record = RunRecord.of(self._job, fingerprint, plan, units, date, ask_trial(), parts_order)
        write_fenced(self.store, self.lease.token, RUN, record.to_json())
        self.record = record
        return record

    def generation_of(self, fingerprint: Mapping[str, Any]) -> int | None:
        """The number of the generation whose rows a job with this fingerprint computes; None if it
        is new."""
        assert self.record is not None, "generations are of a run that is planned"
        return self.record.generation_of(with_unit_rows(fingerprint, self.record.plan.unit_rows))

    def generation(self, job: Job, fingerprint: Mapping[str, Any], trial: tuple[float, ...] | None) -> int:
        """The same of `job`. One that is new is recorded first, with what its task was told before
        all rows.

        Raises:
            LeaseError: another run has taken the folder over.
            OutputError: it cannot be written.
        """
        known = self.generation_of(fingerprint)
        if known is not None:
            return known
        assert self.record is not None, "generations are of a run that is planned"
        further = SpecGeneration.of(job, with_unit_rows(fingerprint, self.record.plan.unit_rows), trial)
        record = replace(self.record, generations=(*self.record.generations, further))
        write_fenced(self.store, self.lease.token, RUN, record.to_json())
        self.record = record
        return len(record.generations)

    def trial_of(self, generation: int) -> tuple[float, ...] | None:
        """What the task of a generation was told before all rows, None if that is nothing."""
        assert self.record is not None, "generations are of a run that is planned"
        return self.record.trial_of(generation)

    def survey(self) -> Survey:
        """Finds the committed units: those whose receipt names files that are there and have the sizes it says. Removes files of earlier
        epochs that no receipt names.

        Raises:
            DamageError: a receipt or the table of units is not as it was written.
            OutputError: the folder cannot be read.
        """
        assert self.record is not None, "a run is surveyed once it is planned"
        unit_rows = rows_of_units(self.store, self.record)
        data, errors = self._found()
        survey = Survey(
            is_committed=np.zeros(len(unit_rows), np.bool_), totals=Totals(), files=CommittedFiles(len(unit_rows))
        )
        for receipt in iter_receipts(self.store, self._job.output.format, unit_rows):
            survey.files.add(receipt)
            if data.is_whole(receipt.unit, receipt.data) and errors.is_whole(receipt.unit, receipt.errors):
                survey.is_committed[receipt.unit] = True
                survey.totals = totals_with(survey.totals, receipt)
            else:
                text = "the files of unit %d are not those of its receipt; it is computed again"
                logger.warning(text, receipt.unit)
        self._sweep((data, errors), survey.files)
        return survey

    def sweep(self, survey: Survey) -> None:
        """Removes what this run and those before have left over, once nothing of this run is at work any more: files of attempts that came
        second, and those that an earlier run wrote late.

        Raises:
            LeaseError: another run has taken the folder over.
            OutputError: the folder cannot be read or written.
        """
        self._sweep(self._found(), survey.files)

    def _found(self) -> tuple[FoundFiles, FoundFiles]:
        """The files of units in `data/` and `errors/`."""
        assert self.record is not None, "a run has units once it is planned"
        num_units, ending = self.record.plan.num_units, ending_of(self._job.output.format)
        return (
            FoundFiles.listed(self.store, DATA, num_units, ending),
            FoundFiles.listed(self.store, ERRORS, num_units, "jsonl"),
        )

    def _sweep(self, folders: Sequence[FoundFiles], files: CommittedFiles) -> None:
        """Removes what no receipt names of units that this run has committed, and of epochs that are over. What else a run of this epoch
        or a later one has written, it may be about to commit."""
        epoch = self.lease.token.epoch
        ensure_owned(self.store, self.lease.token)
        for found in folders:
            for part in left_over(found, files):
                if part.epoch < epoch or (part.epoch == epoch and files.is_committed(part.unit)):
                    self.store.delete(f"{found.folder}/{part}")
                    logger.info("removed %s/%s of %s, which no receipt names", found.folder, part, self.store.location)

    def pending_units(self, survey: Survey) -> Iterator[Unit]:
        """The units that are not committed, in order, read from the plan as they are asked for."""
        assert self.record is not None, "a run has units once it is planned"
        units = planned_units(self.store, self.record)
        yield from (unit for unit in units if not survey.is_committed[unit.index])

    def committer(self) -> Committer:
        """What workers commit with."""
        return Committer(store=self.store, format=self._job.output.format, token=self.lease.token)

    def write_unreadable(self, units: Sequence[UnreadableUnit]) -> None:
        """Lists the units that could not be read in `errors/units.jsonl`, in the order of the input; the file is there if and only if there
        are any."""
        self.lease.check()
        if units:
            write_fenced(self.store, self.lease.token, UNREADABLE, unreadable_lines(units))
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
    changed = differences(record.fingerprint, with_unit_rows(fingerprint, record.plan.unit_rows))
    if changed:
        raise FingerprintError(
            f"{store.location} holds a run of something else (old -> new):\n  "
            + "\n  ".join(changed)
            + "\nundo the change to go on with that run, or use a new output.path"
        )
    return record
