"""A short hash of a file's content: its size, its head, its tail and blocks at even distances between.

It tells a file that was written again from one that was only touched, copied or restored, in a few reads however large the file is. All
of a small file counts.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipelines.errors import PlanError, SourceError
from pipelines.io.inputs import Storage, is_remote, with_retries
from pipelines.units.listing import SourceFile

_BLOCKS, _BLOCK_BYTES = 8, 16 << 10
_THREADS = 16


def digest_of(storage: Storage, path: str, size: int) -> str:
    """The hash of a file of `size` bytes.

    Raises:
        SourceError: it cannot be read, or is shorter.
    """
    digest = hashlib.sha256(str(size).encode())
    for start in block_starts(0, size, _BLOCKS, _BLOCK_BYTES):
        digest.update(storage.read(path, start, min(_BLOCK_BYTES, size - start)))
    return digest.hexdigest()


def with_digests(files: Sequence[SourceFile]) -> tuple[SourceFile, ...]:
    """The files with the hashes of those of this machine; a store's own tags tell versions apart.

    Raises:
        PlanError: a file cannot be read.
    """
    storage = Storage()

    def add_digest(file: SourceFile) -> SourceFile:
        if is_remote(file.path):
            return file
        try:
            return replace(file, digest=with_retries(lambda: digest_of(storage, file.path, file.size)))
        except SourceError as error:
            raise PlanError(str(error), path=file.path) from error

    with ThreadPoolExecutor(_THREADS) as threads:
        return tuple(threads.map(add_digest, files))


def block_starts(first: int, end: int, num_blocks: int, block_bytes: int) -> Iterator[int]:
    """Where blocks start: every one of a small file, else `num_blocks` at even distances with the last one at the end."""
    if end - first <= num_blocks * block_bytes:
        yield from range(first, end, block_bytes)
    else:
        room = end - first - block_bytes
        yield from (first + room * block // (num_blocks - 1) for block in range(num_blocks))
