"""The receipt of a unit: proof that its results are complete, which files they are, and what they cost.

    iter_receipts(store, format, unit_rows) -> Iterator[Receipt]      # in any order
    totals_with(totals, receipt) -> Totals

A receipt is written after the unit's data and dead letters, and names both with size and hash. Its
own name holds only the number of its unit: two attempts at a unit compete for it, and it tells
which files count.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from pipelines.errors import DamageError
from pipelines.io.outputs import Store
from pipelines.job import OutputFormat
from pipelines.ledger.json_fields import Fields
from pipelines.ledger.part_names import DIGEST_DIGITS, MAX_EPOCH, PartName, ending_of
from pipelines.ledger.sealed_json import sealed, unsealed
from pipelines.rows.rows import StepCounts

DATA, ERRORS, RECEIPTS, ATTEMPTS = "data", "errors", "receipts", "attempts"
FOLDERS = (DATA, ERRORS, RECEIPTS, ATTEMPTS)
REPAIR = "`millrace check OUT --repair` forgets the receipts of damaged units, and `millrace run` computes them again"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNTS = ("num_rows", "num_written", "num_failed", "prompt_tokens", "cached_tokens", "completion_tokens")
_READERS = 16
_RECEIPTS_PER_BATCH = 1024


def receipt_name(unit: int) -> str:
    """Where the receipt of a unit is."""
    return f"{RECEIPTS}/part-{unit:08d}.json"


def unit_of_receipt(file_name: str) -> int | None:
    """The unit whose receipt has this name in its folder; None for a name that a run does not
    write."""
    name = PartName.of(file_name)
    return name.unit if name is not None and f"{RECEIPTS}/{file_name}" == receipt_name(name.unit) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A file that a receipt vouches for."""

    name: str
    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: str, unit: int, epoch: int, ending: str, content: bytes) -> "Shard":
        """The shard of `content`, under the name that only this epoch writes, and only with this content."""
        sha256 = hashlib.sha256(content).hexdigest()
        name = PartName(unit=unit, epoch=epoch, digest=sha256[:DIGEST_DIGITS], ending=ending)
        return cls(name=f"{folder}/{name}", num_bytes=len(content), sha256=sha256)

    @property
    def key(self) -> int:
        """The key of the file's name among those of its unit."""
        part = PartName.of(self.name.partition("/")[2])
        assert part is not None, "names are checked when a receipt is read"
        return part.key


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRows:
    """The rows of a unit, by number in their file and ascending, that a later generation of the
    spec (from 1) was the last to compute."""

    generation: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """A committed unit: the epoch that committed it (0: by a version before), rows in, written and
    failed, tokens, the seconds it took, and its two files; of a cascade what each model did; and
    the rows that are not of the spec that the run was planned with."""

    unit: int
    epoch: int
    num_rows: int
    num_written: int
    num_failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    data: Shard
    errors: Shard
    steps: tuple[StepCounts, ...] = ()
    generations: tuple[GenerationRows, ...] = ()

    def to_json(self) -> bytes:
        values = asdict(self)
        for name in ("steps", "generations"):
            if not values[name]:
                del values[name]
        return sealed(values)

    @classmethod
    def from_json(cls, content: bytes, format: OutputFormat) -> "Receipt":
        """`format` is the run's: receipts of versions before name no files.

        Raises:
            ValueError: the content is not a receipt, or not as it was written.
        """
        fields = Fields(unsealed(content))
        unit = fields.count("unit")
        epoch = fields.count("epoch") if "epoch" in fields.values else 0
        if epoch > MAX_EPOCH:
            raise ValueError(f"its epoch is {epoch}, and none is over {MAX_EPOCH}")
        counts = {name: fields.count(name) for name in _COUNTS}
        if counts["num_written"] + counts["num_failed"] != counts["num_rows"]:
            rows = "{num_rows} rows went in, {num_written} were written and {num_failed} failed"
            raise ValueError(rows.format_map(counts))
        return cls(
            unit=unit,
            epoch=epoch,
            **counts,
            seconds=fields.seconds("seconds"),
            data=_shard(fields.object("data"), DATA, unit, epoch, ending_of(format)),
            errors=_shard(fields.object("errors"), ERRORS, unit, epoch, "jsonl"),
            steps=tuple(map(_step, fields.objects("steps"))) if "steps" in fields.values else (),
            generations=tuple(map(_generation, fields.objects("generations")))
            if "generations" in fields.values
            else (),
        )


def _step(fields: Fields) -> StepCounts:
    return StepCounts(
        num_asked=fields.count("num_asked"),
        num_kept=fields.count("num_kept"),
        prompt_tokens=fields.count("prompt_tokens"),
        cached_tokens=fields.count("cached_tokens"),
    )


def _generation(fields: Fields) -> GenerationRows:
    return GenerationRows(generation=fields.count("generation"), rows=fields.counts("rows"))


def _shard(fields: Fields, folder: str, unit: int, epoch: int, ending: str) -> Shard:
    """A shard whose name is one that this epoch could have given, so that nothing else is ever read in its place."""
    sha256 = fields.text("sha256")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"its {fields.place}sha256 is {sha256[:80]!r}, which is not a SHA-256")
    name = f"{folder}/{PartName(unit=unit, epoch=epoch, digest=sha256[:DIGEST_DIGITS] if epoch else '', ending=ending)}"
    if epoch and fields.text("name") != name:
        raise ValueError(
            f"its {fields.place}name is {fields.text('name')[:80]!r}, but {name} belongs to its unit, epoch and hash"
        )
    return Shard(name=name, num_bytes=fields.count("num_bytes"), sha256=sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Sums over receipts."""

    num_units: int = 0
    num_rows: int = 0
    num_written: int = 0
    num_failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    data_bytes: int = 0


def read_receipt(store: Store, unit: int, format: OutputFormat) -> Receipt:
    """The receipt of a unit that is committed.

    Raises:
        DamageError: it is not there, or not as it was written.
        OutputError: it cannot be read.
    """
    name = receipt_name(unit)
    try:
        return Receipt.from_json(store.read(name) or b"", format)
    except ValueError as error:
        raise DamageError(f"{store.location}/{name} is damaged: {error}; {REPAIR}") from error


def committed_content(store: Store, shard: Shard) -> bytes:
    """What a receipt vouches for.

    Raises:
        DamageError: the file is not what was committed.
        OutputError: it cannot be read.
    """
    content = store.read(shard.name)
    if content is None or hashlib.sha256(content).hexdigest() != shard.sha256:
        raise DamageError(f"{store.location}/{shard.name} is not what was committed; {REPAIR}")
    return content


def iter_receipts(store: Store, format: OutputFormat, unit_rows: npt.NDArray[np.int64]) -> Iterator[Receipt]:
    """All receipts of a run, in any order. `unit_rows` is how many rows were planned for each unit [units].

    Raises:
        DamageError: one is not a receipt, not as it was written, or not of the run that was
            planned.
        OutputError: they cannot be read.
    """
    names = (name for name, _ in store.sizes(RECEIPTS) if unit_of_receipt(name) is not None)
    with ThreadPoolExecutor(_READERS) as readers:
        while batch := list(islice(names, _RECEIPTS_PER_BATCH)):
            contents = readers.map(lambda name: store.read(f"{RECEIPTS}/{name}"), batch)
            for name, content in zip(batch, contents, strict=True):
                if content is not None:  # else it was forgotten a moment ago
                    yield _parsed_receipt(store, name, content, format, unit_rows)


def _parsed_receipt(
    store: Store, name: str, content: bytes, format: OutputFormat, unit_rows: npt.NDArray[np.int64]
) -> Receipt:
    try:
        receipt = Receipt.from_json(content, format)
        if receipt.unit >= len(unit_rows):
            raise ValueError(f"it is of unit {receipt.unit}, and {len(unit_rows)} were planned")
        check_planned(receipt, unit_of_receipt(name), int(unit_rows[receipt.unit]))
    except ValueError as error:
        raise DamageError(f"{store.location}/{RECEIPTS}/{name} is damaged: {error}; {REPAIR}") from error
    return receipt


def check_planned(receipt: Receipt, unit: int | None, num_rows: int) -> None:
    """Compares a receipt with the unit that it is kept under and the rows that were planned for it.

    Raises:
        ValueError: it is of something else.
    """
    if (receipt.unit, receipt.num_rows) != (unit, num_rows):
        raise ValueError(
            f"it is of unit {receipt.unit} with {receipt.num_rows} rows, {num_rows} were planned for unit {unit}"
        )


def totals_with(totals: Totals, receipt: Receipt) -> Totals:
    """The totals with one receipt more."""
    return Totals(
        num_units=totals.num_units + 1,
        num_rows=totals.num_rows + receipt.num_rows,
        num_written=totals.num_written + receipt.num_written,
        num_failed=totals.num_failed + receipt.num_failed,
        prompt_tokens=totals.prompt_tokens + receipt.prompt_tokens,
        cached_tokens=totals.cached_tokens + receipt.cached_tokens,
        completion_tokens=totals.completion_tokens + receipt.completion_tokens,
        seconds=totals.seconds + receipt.seconds,
        data_bytes=totals.data_bytes + receipt.data.num_bytes,
    )
