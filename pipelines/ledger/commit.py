"""Committing a unit: data, dead letters, and then the receipt, which makes them count.

`Committer` is what a worker gets (from `Ledger.committer()`); it is picklable. It writes only while its run holds the lease: the lease is
read before the first write and again before the receipt. A write that lands later all the same, because its process or its network stood
still in between, changes nothing that is committed: data and dead letters have names that only this epoch gives, and only to this
content, and a receipt takes the place of an earlier epoch's alone. Of several attempts in one epoch the first receipt stays, so a unit
cannot count twice.
"""

from dataclasses import dataclass
from typing import Protocol

from pipelines.io.outputs import Store, Versioned, put
from pipelines.job import OutputFormat
from pipelines.ledger.fence import write_fenced
from pipelines.ledger.lease import LeaseToken, ensure_owned
from pipelines.ledger.part_names import ending_of
from pipelines.ledger.receipts import DATA, ERRORS, Receipt, Shard, receipt_name
from pipelines.ledger.unit_files import encode_dead_letters, encode_results
from pipelines.rows.rows import FinishedUnit

PROMPT = "prompt.txt"
"""What the model has read for the first row of a run, whole, special tokens included: for people, and nothing depends on it."""


class CommitsUnits(Protocol):
    """What the last operator of a graph commits with: a `Committer`, or what retries dead
    letters."""

    def commit(self, finished: FinishedUnit) -> Receipt:
        """Writes a unit's files and its receipt; see `Committer`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Committer:
    """Writes finished units of the run that holds `token`."""

    store: Store
    format: OutputFormat
    token: LeaseToken

    def is_draining(self) -> bool:
        """Whether no new unit should be started.

        Raises:
            LeaseError: the run has lost the output folder.
        """
        return ensure_owned(self.store, self.token).is_draining

    def commit(self, finished: FinishedUnit) -> Receipt:
        """Writes a unit's files and its receipt. Returns the receipt that counts: another attempt of this run may have been faster.

        Raises:
            LeaseError: the run has lost the output folder; what was written does not count.
            OutputError: something cannot be written.
        """
        unit = finished.unit
        num_written, num_failed = finished.results.num_rows, len(finished.failures)
        assert num_written + num_failed == unit.num_rows, (
            f"unit {unit.index} has {unit.num_rows} rows, but {num_written} results and {num_failed} failures"
        )
        data = encode_results(finished, self.format)
        errors = encode_dead_letters(unit, finished.failures)
        epoch = self.token.epoch
        receipt = Receipt(
            unit=unit.index,
            epoch=epoch,
            num_rows=unit.num_rows,
            num_written=num_written,
            num_failed=num_failed,
            prompt_tokens=finished.prompt_tokens,
            cached_tokens=finished.cached_tokens,
            completion_tokens=finished.completion_tokens,
            seconds=finished.seconds,
            data=Shard.of(DATA, unit.index, epoch, ending_of(self.format), data),
            errors=Shard.of(ERRORS, unit.index, epoch, "jsonl", errors),
            steps=finished.steps,
        )
        ensure_owned(self.store, self.token)
        self.store.write(receipt.data.name, data)
        self.store.write(receipt.errors.name, errors)
        if finished.prompt is not None:
            write_fenced(self.store, self.token, PROMPT, finished.prompt.encode(errors="replace"))
        return self._publish(receipt)

    def _publish(self, receipt: Receipt) -> Receipt:
        """Writes a receipt in the place of none or of an earlier epoch's; see `pipelines.ledger.fence` for why a late one does no
        harm. A unit that is computed has no receipt of this epoch yet, and mostly none at all, so that nothing need be read at first."""
        name, found = receipt_name(receipt.unit), None
        while True:
            ensure_owned(self.store, self.token)
            if put(self.store, name, found, receipt.to_json()) is not None:
                return receipt
            found = self.store.read_versioned(name)
            other = None if found is None else self._receipt_in(found)
            if other is not None and other.epoch == self.token.epoch:
                return other

    def _receipt_in(self, found: Versioned) -> Receipt | None:
        try:
            return Receipt.from_json(found.content, self.format)
        except ValueError:
            return None
