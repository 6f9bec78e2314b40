"""Committing a unit some of whose dead letters were tried again: the new unit takes the place of
the old one by its receipt.

Files of the new unit have names of this epoch, beside those of the old one, which nobody reads any
more once the receipt is replaced; then they are removed. Whoever goes by receipts sees the old
unit or the new one at every moment. Who reads `data/*` sees both from when the new file is there
until the old one is not: for as long as it takes to write a receipt.
"""

from dataclasses import dataclass

from pipelines.errors import DamageError, OutputError
from pipelines.io.outputs import Store, Versioned
from pipelines.ledger.commit import Committer
from pipelines.ledger.lease import ensure_owned
from pipelines.ledger.part_names import ending_of
from pipelines.ledger.receipts import DATA, ERRORS, REPAIR, Receipt, Shard, committed_content, receipt_name
from pipelines.retry.letters import DeadLetter, letters_of
from pipelines.retry.merging import HeldUnit, generations_with, merged, steps_with
from pipelines.retry.selection import Selection
from pipelines.rows.rows import FinishedUnit


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryCommitter:
    """Commits in the place of what is committed, for the run that `committer` writes for; the rows
    it is given are those of `selection`, computed for the spec's `generation`."""

    committer: Committer
    selection: Selection
    generation: int

    def commit(self, finished: FinishedUnit) -> Receipt:
        """Writes the unit's files, and its receipt over the one that is there. Returns the receipt
        that counts: another attempt of this run may have been faster.

        Raises:
            LeaseError: the run has lost the output folder; what was written does not count.
            DamageError: the unit is not what was committed.
            OutputError: something cannot be written, or the unit is another by now.
        """
        store, name = self.committer.store, receipt_name(finished.unit.index)
        found, before = self._found(name)
        if before.epoch == self.committer.token.epoch:
            return before
        letters = letters_of(store, before)
        tried = self.selection.of(finished.unit.index, letters)
        held = HeldUnit(receipt=before, data=committed_content(store, before.data), letters=letters)
        receipt = self._write(held, tried, finished)
        ensure_owned(store, self.committer.token)
        if store.replace(name, found.version, receipt.to_json()) is None:
            return self._faster(name)
        for shard in (before.data, before.errors):
            store.delete(shard.name)
        return receipt

    def _write(self, held: HeldUnit, tried: list[DeadLetter], finished: FinishedUnit) -> Receipt:
        """Writes the two files. The one of results comes last, so that readers of the folder see
        it beside the old one for as short as can be."""
        store, token, before = self.committer.store, self.committer.token, held.receipt
        unit = before.unit
        new = merged(held, tried, finished, self.committer.format)
        receipt = Receipt(
            unit=unit,
            epoch=token.epoch,
            num_rows=before.num_rows,
            num_written=new.num_written,
            num_failed=new.num_failed,
            prompt_tokens=before.prompt_tokens + finished.prompt_tokens,
            cached_tokens=before.cached_tokens + finished.cached_tokens,
            completion_tokens=before.completion_tokens + finished.completion_tokens,
            seconds=before.seconds + finished.seconds,
            data=Shard.of(DATA, unit, token.epoch, ending_of(self.committer.format), new.data),
            errors=Shard.of(ERRORS, unit, token.epoch, "jsonl", new.errors),
            steps=steps_with(before.steps, finished.steps),
            generations=generations_with(before.generations, self.generation, [letter.row for letter in tried]),
        )
        ensure_owned(store, token)
        store.write(receipt.errors.name, new.errors)
        store.write(receipt.data.name, new.data)
        return receipt

    def _found(self, name: str) -> tuple[Versioned, Receipt]:
        store: Store = self.committer.store
        found = store.read_versioned(name)
        if found is None:
            raise DamageError(f"{store.location}/{name} is gone, so that its unit is not committed any more; {REPAIR}")
        try:
            return found, Receipt.from_json(found.content, self.committer.format)
        except ValueError as error:
            raise DamageError(f"{store.location}/{name} is damaged: {error}; {REPAIR}") from error

    def _faster(self, name: str) -> Receipt:
        """The receipt of another attempt of this run."""
        _, now = self._found(name)
        if now.epoch != self.committer.token.epoch:
            raise OutputError(f"{self.committer.store.location}/{name} was written anew meanwhile; retry again")
        return now
