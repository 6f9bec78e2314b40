"""Record batches as a stream of rows that is read forwards."""

from collections.abc import Iterator

import pyarrow as pa

from pipelines.io.inputs import reading


class RowStream:
    """The rows of batches that come one by one from the file at `path`; `position` rows were passed."""

    def __init__(self, batches: Iterator[pa.RecordBatch], path: str) -> None:
        self._batches = batches
        self._path = path
        self._rest: pa.RecordBatch | None = None
        self.position = 0

    def skip(self, num_rows: int) -> None:
        """Passes over rows.

        Raises:
            SourceError: the file cannot be read, or ends before.
        """
        for _ in self._slices(num_rows):
            pass

    def take(self, num_rows: int) -> list[pa.RecordBatch]:
        """The next rows, in slices of the batches that they are in.

        Raises:
            SourceError: the file cannot be read, or ends before.
        """
        return list(self._slices(num_rows))

    def _slices(self, num_rows: int) -> Iterator[pa.RecordBatch]:
        while num_rows > 0:
            if self._rest is None or not self._rest.num_rows:
                with reading(self._path):
                    self._rest = next(self._batches, None)
                    if self._rest is None:
                        raise EOFError(f"its rows end after {self.position}, {num_rows} short")
                continue
            piece = self._rest.slice(0, num_rows)
            self._rest = self._rest.slice(piece.num_rows)
            self.position += piece.num_rows
            num_rows -= piece.num_rows
            yield piece
