"""Compressed files as streams of their content: gzip and zstd, of several members or frames.

gzip may be padded with zeros, as tapes and some block stores do. zstd may have windows up to the format's 2 GiB (`zstd --long=31`):
only what the content fills of one is ever touched. A stream that ends within a member or a frame is an error, never a short content.
"""

import gzip
from typing import BinaryIO, Literal, cast

import zstandard

Compression = Literal["gzip", "zstd"]

_MAX_WINDOW_BYTES = 1 << 31
_READ_BYTES = 64 << 10
_FED_BYTES = 2 << 10  # of zstd at once: they can grow 32,000 times


def decompressed(file: BinaryIO, compression: Compression) -> BinaryIO:
    """The content of a compressed file, which is closed together with it.

    Reading raises `EOFError` where the file ends too early, `gzip.BadGzipFile`, `zlib.error` or `zstandard.ZstdError` where it is damaged.
    """
    return cast("BinaryIO", _Gzip(file) if compression == "gzip" else _Zstd(file))


class _Gzip:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._content = gzip.GzipFile(fileobj=file, mode="rb")

    def read(self, size: int) -> bytes:
        return self._content.read(size)

    def close(self) -> None:
        self._content.close()
        self._file.close()


class _Zstd:
    """zstandard's own reader takes a frame that is cut off for a whole one, so frames are followed here."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read = b""
        self._fed = 0  # bytes of `_read` that frames have had
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._content = bytearray()
        self._is_over = False

    def read(self, size: int) -> bytes:
        while len(self._content) < size and not self._is_over:
            self._decompress_some()
        found = bytes(self._content[:size])
        del self._content[:size]
        return found

    def _decompress_some(self) -> None:
        if self._fed == len(self._read):
            self._read, self._fed = self._file.read(_READ_BYTES), 0
        if not self._read:
            self._end()
            return
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        piece = self._read[self._fed : self._fed + _FED_BYTES]
        self._content += self._frame.decompress(piece)
        self._fed += len(piece) - len(self._frame.unused_data)
        if self._frame.eof:
            self._frame = None

    def _end(self) -> None:
        if self._frame is not None:
            raise EOFError("the file ends within a zstd frame")
        self._is_over = True

    def close(self) -> None:
        self._file.close()
