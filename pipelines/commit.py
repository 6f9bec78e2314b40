"""Committing a unit: data, dead letters, and then the receipt, which makes them count.

`Committer` is what a worker gets (from `Ledger.committer()`); it is picklable. It writes only while its run holds the lease: the lease
is read before the first write and again before the receipt. Two attempts at one unit write the same names, so a unit cannot count twice.
"""

import hashlib
from dataclasses import dataclass

from pipelines.job import OutputFormat
from pipelines.lease import LeaseToken, ensure_owned
from pipelines.receipts import Receipt, Shard, data_name, errors_name, receipt_name
from pipelines.rows import FinishedUnit
from pipelines.shards import encode_dead_letters, encode_results
from pipelines.store import Store


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
        """Writes a unit's files and its receipt.

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
        receipt = Receipt(
            unit=unit.index,
            num_rows=unit.num_rows,
            num_written=num_written,
            num_failed=num_failed,
            prompt_tokens=finished.prompt_tokens,
            cached_tokens=finished.cached_tokens,
            completion_tokens=finished.completion_tokens,
            seconds=finished.seconds,
            data=_shard(data),
            errors=_shard(errors),
        )
        ensure_owned(self.store, self.token)
        self.store.write(data_name(unit.index, self.format), data)
        self.store.write(errors_name(unit.index), errors)
        ensure_owned(self.store, self.token)
        self.store.write(receipt_name(unit.index), receipt.to_json())
        return receipt


def _shard(content: bytes) -> Shard:
    return Shard(num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
