"""The two files of a batch that is done, as OpenAI's API gives them back: `output.jsonl` and `errors.jsonl`.

They are put together from the committed parts, in the order of the input. One unit is in memory at a time.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from actors.work import digits_of
from pipelines.errors import OutputError
from pipelines.formats.batch_lines import error_line
from pipelines.formats.json_line import parse_line
from pipelines.io.outputs import Store
from pipelines.ledger.planned_units import planned_units
from pipelines.ledger.receipts import committed_content, read_receipt
from pipelines.ledger.run_record import RunRecord
from pipelines.rows.seeds import row_seed
from pipelines.rows.unit import Unit

OUTPUT: Final = "output.jsonl"
ERRORS: Final = "errors.jsonl"


def write_batch_files(store: Store, record: RunRecord, check: Callable[[], None]) -> None:
    """Writes both files of a run whose units are all committed, each at once. `check` is called before one of them counts.

    Raises:
        DamageError: a part is not what was committed.
        OutputError: they cannot be written.
        PipelineError: what `check` raises.
    """
    for name, pieces in _files(store, record):
        with store.write_with(name) as path:
            with path.open("wb") as file:
                file.writelines(pieces)
            check()


def batch_file_faults(store: Store, record: RunRecord) -> Iterator[str]:
    """What is wrong with the two files of such a run.

    Raises:
        DamageError: a part is not what was committed.
    """
    for name, pieces in _files(store, record):
        try:
            file = store.open(name)
        except OutputError as error:
            yield f"{name} cannot be read: {error}; run again, which puts it together from the parts"
            continue
        with file:
            is_whole = all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)
        if not is_whole:
            yield f"{name} is not what its parts hold; run again, which puts it together from them"


def _files(store: Store, record: RunRecord) -> tuple[tuple[str, Iterator[bytes]], ...]:
    return (OUTPUT, _results(store, record)), (ERRORS, _errors(store, record))


def _results(store: Store, record: RunRecord) -> Iterator[bytes]:
    return (
        committed_content(store, read_receipt(store, unit.index, record.format).data)
        for unit in planned_units(store, record)
    )


def _errors(store: Store, record: RunRecord) -> Iterator[bytes]:
    seed = record.spec["seed"]
    for unit in planned_units(store, record):
        for line in committed_content(store, read_receipt(store, unit.index, record.format).errors).splitlines():
            yield _error_line(seed, unit, parse_line(line)) + b"\n"


def _error_line(seed: int, unit: Unit, letter: dict[str, Any]) -> bytes:
    return error_line(digits_of(row_seed(seed, unit.relative_path, letter["row"])), letter)
