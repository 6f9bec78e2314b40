"""The receipt of a unit: proof that its results are complete, and what they cost.

    iter_receipts(store) -> Iterator[Receipt]      # in any order
    totals_with(totals, receipt) -> Totals

A receipt is written after the unit's data and dead letters and holds the size and hash of both.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import orjson

from pipelines.job import OutputFormat
from pipelines.store import Store

logger = logging.getLogger(__name__)

DATA, ERRORS, RECEIPTS, ATTEMPTS = "data", "errors", "receipts", "attempts"
FOLDERS = (DATA, ERRORS, RECEIPTS, ATTEMPTS)

_READERS = 16
_RECEIPTS_PER_BATCH = 1024


def data_name(unit: int, format: OutputFormat) -> str:
    """Where the results of a unit are."""
    return f"{DATA}/part-{unit:08d}.{format}"


def errors_name(unit: int) -> str:
    """Where the dead letters of a unit are."""
    return f"{ERRORS}/part-{unit:08d}.jsonl"


def receipt_name(unit: int) -> str:
    """Where the receipt of a unit is."""
    return f"{RECEIPTS}/part-{unit:08d}.json"


def unit_of(name: str) -> int | None:
    """The unit that a shard or receipt with this file name belongs to; None for a name that is none of ours."""
    stem = name.split(".", 1)[0]
    number = stem.removeprefix("part-")
    return int(number) if stem != number and number.isdecimal() and len(number) >= 8 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A file that a receipt vouches for."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """A committed unit: rows in, written and failed, tokens, the seconds it took, and its two files."""

    unit: int
    num_rows: int
    num_written: int
    num_failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    data: Shard
    errors: Shard

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, content: bytes) -> "Receipt":
        """Raises:
        ValueError: the content is no receipt.
        """
        try:
            fields: dict[str, Any] = orjson.loads(content)
            data, errors = Shard(**fields.pop("data")), Shard(**fields.pop("errors"))
            return cls(data=data, errors=errors, **fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no receipt: {error!r}") from error


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


def iter_receipts(store: Store) -> Iterator[Receipt]:
    """All receipts of a run, in any order. One that is damaged is left out, for its unit does not count as committed.

    Raises:
        OutputError: they cannot be read.
    """
    names = (f"{RECEIPTS}/{name}" for name, _ in store.sizes(RECEIPTS) if unit_of(name) is not None)
    with ThreadPoolExecutor(_READERS) as readers:
        while batch := list(islice(names, _RECEIPTS_PER_BATCH)):
            for name, content in zip(batch, readers.map(store.read, batch), strict=True):
                receipt = _parsed(content)
                if receipt is not None and receipt_name(receipt.unit) == name:
                    yield receipt
                else:
                    logger.warning("%s/%s is damaged: its unit does not count as committed", store.location, name)


def _parsed(content: bytes | None) -> Receipt | None:
    try:
        return None if content is None else Receipt.from_json(content)
    except ValueError:
        return None


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
