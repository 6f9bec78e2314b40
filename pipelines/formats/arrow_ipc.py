"""Arrow IPC files: their record batches, and ranges of their rows. Both forms, told apart by the first bytes.

The file form (`ARROW1` at its start, a footer at its end; also Feather of version 2) gives each of its batches at
once. So does the stream form (what Hugging Face's `datasets` writes) from where a batch's message begins, unless it has
dictionaries, which messages before may have changed: then it is read in order. Bodies may be compressed with LZ4 or
zstd. Files of this machine are mapped, so that of batches that are not compressed only the rows that are asked for are
ever in memory; others are decoded a batch at a time.

Columns come in the plain types of `pipelines.formats.plain_arrays`. The format is https://arrow.apache.org/docs/format/Columnar.html;
a reader of it takes offsets as they come, so they are checked here: a damaged file must not crash a process.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from pipelines.formats.conform import has_text
from pipelines.formats.plain_arrays import plain_column, plain_schema
from pipelines.formats.row_stream import RowStream
from pipelines.formats.schema import Columns, with_bytes
from pipelines.io.inputs import Storage, is_remote, reading

FILE_MARK = b"ARROW1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """What an Arrow file holds: its schema, and each batch's rows and bytes in memory of the columns that are needed.

    `places` are where its batches can be had: their numbers in a file, their first bytes in a stream. None: in order alone.
    """

    schema: pa.Schema
    places: tuple[int, ...] | None
    num_rows: tuple[int, ...]
    num_bytes: tuple[int, ...]


def read_batches(storage: Storage, path: str, columns: Columns) -> Batches:
    """Goes through a file's batches.

    Raises:
        SourceError: it cannot be read, or is not an Arrow file.
    """
    with _opened(storage, path) as opened, reading(path):
        opened.choose([name for name in opened.schema.names if columns.is_needed(name)])
        found = [(place, batch.num_rows, _num_bytes(batch)) for place, batch in opened.placed_batches()]
        return Batches(
            schema=plain_schema(opened.schema),
            places=None if opened.is_in_order else tuple(place for place, _, _ in found),
            num_rows=tuple(num_rows for _, num_rows, _ in found),
            num_bytes=tuple(num_bytes for _, _, num_bytes in found),
        )


def read_names(storage: Storage, path: str) -> tuple[str, ...]:
    """The names of a file's columns.

    Raises:
        SourceError: it cannot be read, or is not an Arrow file.
    """
    with _opened(storage, path) as opened:
        return tuple(opened.schema.names)


def iter_row_ranges(
    storage: Storage, path: str, place: int | None, names: Sequence[str], ranges: Sequence[tuple[int, int]]
) -> Iterator[pa.Table]:
    """Yields the rows of each range (first row, number of rows) in turn; the ranges ascend and do not overlap. Rows are
    counted from the start of the batch at `place` (None: of the first batch).

    Those of `names` that the file lacks are left out. What is yielded does not refer to the file.

    Raises:
        SourceError: the file cannot be read, is damaged, or has fewer rows.
    """
    with _opened(storage, path) as opened:
        present = [name for name in names if name in opened.schema.names]
        opened.choose(present)
        rows = RowStream(map(_validated, opened.batches(place, present)), path)
        for start, count in ranges:
            rows.skip(start - rows.position)
            with reading(path):
                table = pa.Table.from_batches([_own_batch(piece) for piece in rows.take(count)])
            yield table.select(present)


@contextmanager
def _opened(storage: Storage, path: str) -> Iterator["_Opened"]:
    with reading(path):
        file: Any = storage.open(path) if is_remote(path) else pa.memory_map(path)
    with file:
        with reading(path):
            opened = _Opened(file)
        yield opened


class _Opened:
    """An Arrow file that is open, of which batches come with the chosen columns."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._is_stream = file.read(len(FILE_MARK)) != FILE_MARK
        self._reader = self._open(ipc.IpcReadOptions(use_threads=False))
        self.schema: pa.Schema = self._reader.schema

    @property
    def is_in_order(self) -> bool:
        """Whether a batch can only be had after those before it."""
        return self._is_stream and any(map(_has_dictionary, self.schema.types))

    def choose(self, names: Sequence[str]) -> None:
        """Reads only these columns from now on, or all if no name is given: a batch without
        columns has no rows."""
        places = [self.schema.names.index(name) for name in names]
        self._reader = self._open(ipc.IpcReadOptions(use_threads=False, included_fields=places))

    def _open(self, options: ipc.IpcReadOptions) -> Any:
        self._file.seek(0)
        return (ipc.open_stream if self._is_stream else ipc.open_file)(self._file, options=options)

    def placed_batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """All batches, with their places.

        Raises:
            pa.ArrowInvalid: one is damaged, or larger than memory.
        """
        with _memory_errors_told():
            if not self._is_stream:
                yield from ((place, self._reader.get_batch(place)) for place in range(self._reader.num_record_batches))
                return
            place = self._file.tell()
            for batch in self._reader:
                yield place, batch
                place = self._file.tell()

    def batches(self, place: int | None, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The batches from the one at `place` on, or from the first one on; with the columns `names` at least.

        Raises:
            pa.ArrowInvalid: one is damaged, or larger than memory.
        """
        with _memory_errors_told():
            if place is None:
                yield from self._reader
            elif not self._is_stream:
                yield from map(self._reader.get_batch, range(place, self._reader.num_record_batches))
            else:
                self._file.seek(place)
                for message in self._messages():
                    yield ipc.read_record_batch(message, self.schema).select(names or self.schema.names)

    def _messages(self) -> Iterator[pa.Message]:
        while True:
            try:
                message = ipc.read_message(self._file)
            except EOFError:
                return
            yield message


@contextmanager
def _memory_errors_told() -> Iterator[None]:
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise pa.ArrowInvalid(f"a batch is damaged, or larger than memory: {error}") from error


def _has_dictionary(type: pa.DataType) -> bool:
    if isinstance(type, pa.BaseExtensionType):
        return _has_dictionary(type.storage_type)
    if isinstance(type, pa.RunEndEncodedType):
        return _has_dictionary(type.value_type)
    if pa.types.is_nested(type):
        return any(_has_dictionary(type.field(index).type) for index in range(type.num_fields))
    return bool(pa.types.is_dictionary(type))


def _num_bytes(batch: pa.RecordBatch) -> int:
    """The bytes of a batch in memory: a dictionary counts for as much of it as the rows would repeat."""
    batch.validate()
    return sum(map(_column_bytes, batch.columns))


def _column_bytes(array: Any) -> int:
    if isinstance(array, pa.DictionaryArray):
        per_value = array.dictionary.get_total_buffer_size() // max(1, len(array.dictionary))
        return int(array.indices.get_total_buffer_size() + len(array) * per_value)
    return int(array.get_total_buffer_size())


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, all of whose offsets, indices and lengths lie within its buffers. Text that is not valid UTF-8 is a fault of its row.

    Raises:
        pa.ArrowInvalid: one does not.
    """
    for array in batch.columns:
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            if not has_text(array.type):
                raise
            _validate_but_for_text(array)
    return batch


def _validate_but_for_text(array: Any) -> None:
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    storage.view(with_bytes(array.type)).validate(full=True)


def _own_batch(piece: pa.RecordBatch) -> pa.RecordBatch:
    """A slice of a batch in plain types, in buffers that hold its rows alone."""
    columns = [_own_column(pa.concat_arrays([array])) for array in piece.columns]
    return pa.RecordBatch.from_arrays(columns, schema=plain_schema(piece.schema))


def _own_column(array: Any) -> Any:
    plain = plain_column(array)
    if not isinstance(plain, pa.DictionaryArray):
        return plain
    encoded: Any = plain.dictionary_decode().dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(plain.type.index_type), encoded.dictionary)
