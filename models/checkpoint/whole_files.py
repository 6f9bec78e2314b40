"""Files of a checkpoint that are read whole: the most bytes that each may have, asked before anything is read.

The author of a checkpoint, who may be anyone, chose the sizes of its files. The limits are many
times what is published; a file over its limit is not read.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

MEBIBYTE = 1 << 20

TEMPLATE_BYTES = 1 * MEBIBYTE
"""Of one chat template, wherever it stands; the longest published ones have some 30 kB."""

_DEFAULT_BYTES = 16 * MEBIBYTE
_MAX_BYTES: Mapping[str, int] = {
    "tokenizer.json": 64 * MEBIBYTE,  # 262,144 tokens and their merges take 33 MB
    "model.safetensors.index.json": 32 * MEBIBYTE,
    "vocab.json": 64 * MEBIBYTE,
    "merges.txt": 64 * MEBIBYTE,
    "tokenizer.model": 64 * MEBIBYTE,
}
_PROJECTION_BYTES = 1024 * MEBIBYTE  # of a module that follows a network: 16,384 x 16,384 in float32


class OversizeError(ValueError):
    """A file is larger than it may be, or is not a regular file, which has an end."""


def max_bytes(name: str) -> int:
    """The most bytes that a checkpoint's file of this name may have, if it is not the network's weights."""
    if name.endswith(".safetensors"):
        return _PROJECTION_BYTES
    return TEMPLATE_BYTES if name.endswith(".jinja") else _MAX_BYTES.get(name, _DEFAULT_BYTES)


def check_size_of(name: str, size: int) -> None:
    """Raises OversizeError if a file of this name may not have `size` bytes."""
    if size > max_bytes(name):
        raise OversizeError(f"it has {size:,} bytes, and such a file may have {max_bytes(name):,}")


def read_whole(file: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read.
        OversizeError: it is too large, grows meanwhile, or is a pipe, a socket or a device.
    """
    with open(file, "rb", opener=_open_at_once) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OversizeError("it is no regular file")
        check_size_of(file.name, status.st_size)
        content = opened.read(status.st_size + 1)
    if len(content) > status.st_size:
        raise OversizeError("it grew while it was read")
    return content


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file; does not wait for a writer if it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
