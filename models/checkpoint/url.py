"""A checkpoint at a URL, brought to this machine once for all its processes.

    ~/.cache/millrace/checkpoints/<url>/<version>/       one folder a version; a changed remote has another one
                                       .files.json       what the version is made of: names, sizes, tags
                                       model.safetensors in place once it is whole
                                       .model.safetensors.part
                                  <version>.lock         held by the process that downloads; the system frees it if that dies

A version is what the remote says of its files: names, sizes, and their ETags or modification times. A file is written aside, in pieces
read several at a time, compared with the remote once more, and renamed when all of it is on disk: what has its name is whole, and a
killed download goes on at the file where it was. A caller is given a folder only when
all the files that it asked for are in it.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoint.byte_text import byte_text
from models.checkpoint.files import INDEX_FILE, is_description, weight_files
from models.checkpoint.found import FoundCheckpoint, Parts
from models.checkpoint.remote import NUM_THREADS, PIECE_BYTES, Manifest, Remote, RemoteFile
from models.checkpoint.whole_files import OversizeError, check_size_of
from models.errors import CheckpointError

logger = logging.getLogger(__name__)

_MANIFEST = ".files.json"


def fetch_url(url: str, *, parts: Parts, options: Mapping[str, Any], version: str | None) -> FoundCheckpoint:
    """The checkpoint at an fsspec URL; see `models.checkpoint.place.find_checkpoint`.

    Raises:
        CheckpointError: it cannot be read, has no weights, has changed, or does not fit on the disk.
    """
    home = _home_of(url)
    manifest = None if version is None else _read_manifest(home / version)
    remote = Remote(url, options)
    if manifest is None:
        manifest = remote.list()
        if version is not None and manifest.version != version:
            raise CheckpointError(
                f"{url} is version {manifest.version} now, and was {version} when the run began: its files were written again; "
                "start the run again, with a new output.path"
            )
        _write_whole(home / manifest.version / _MANIFEST, manifest.to_json())
    folder = home / manifest.version
    _check_sizes(url, manifest)
    download = partial(_download, remote, folder)
    download([file for name, file in manifest.files.items() if is_description(name)])
    if parts == "whole":
        download([manifest.files[name] for name in weight_files(url, manifest.names, folder / INDEX_FILE)])
    return FoundCheckpoint(
        place=url,
        folder=folder,
        version=manifest.version,
        weights={
            name: f"{file.size} bytes, version {file.tag}"
            for name, file in manifest.files.items()
            if not is_description(name)
        },
        names=manifest.names,
    )


def _check_sizes(url: str, manifest: Manifest) -> None:
    """What is read whole has to be small, before it is brought here.

    Raises:
        CheckpointError: a file is too large for what its name says.
    """
    for name, file in manifest.files.items():
        if is_description(name):
            try:
                check_size_of(name, file.size)
            except OversizeError as error:
                raise CheckpointError(
                    f"{url}/{name} is not read: {error}; give the checkpoint as it was published"
                ) from error


def _home_of(url: str) -> Path:
    """Where the versions of a URL are kept: its name is for people, its hash for us."""
    url = url.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", url)[-60:].strip("-.")
    return cache_folder() / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def cache_folder() -> Path:
    """Where downloaded checkpoints are kept, under the home folder of this process's user."""
    return Path.home() / ".cache" / "millrace" / "checkpoints"


def _read_manifest(folder: Path) -> Manifest | None:
    file = folder / _MANIFEST
    return Manifest.from_json(file.read_text(encoding="utf-8")) if file.exists() else None


def _write_whole(file: Path, text: str) -> None:
    """In one step; processes that write it at the same time write the same."""
    if file.exists():
        return
    with _on_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)


def _download(remote: Remote, folder: Path, files: Sequence[RemoteFile]) -> None:
    """Brings the files that are not in the folder yet; returns when all are."""
    if not _absent(folder, files):
        return
    with _on_disk(folder), _locked(folder.with_name(f"{folder.name}.lock"), remote.url):
        absent = _absent(folder, files)
        _check_room(remote.url, folder, sum(file.size for file in absent))
        started = time.monotonic()
        for file in absent:
            _download_one(remote, file, folder / file.name)
    num_bytes, seconds = sum(file.size for file in absent), max(time.monotonic() - started, 1e-3)
    if num_bytes > PIECE_BYTES:
        rate = num_bytes / seconds / 1e6
        logger.info("%s: %.1f MB in %.1f s (%.0f MB/s) to %s", remote.url, num_bytes / 1e6, seconds, rate, folder)


def _absent(folder: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if not (folder / file.name).exists()]


def _download_one(remote: Remote, file: RemoteFile, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    with draft.open("wb") as out:
        out.truncate(file.size)
        pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="download")
        try:
            for _ in pool.map(partial(_copy_piece, remote, file, out.fileno()), file.pieces):
                pass
        finally:  # before the file is closed: no thread may write to its number after that
            pool.shutdown(cancel_futures=True)
        os.fsync(out.fileno())
    remote.check_unchanged(file)
    draft.replace(target)


def _copy_piece(remote: Remote, file: RemoteFile, out: int, start: int) -> None:
    piece = memoryview(remote.read(file, start))
    while piece:
        num_written = os.pwrite(out, piece, start)
        piece, start = piece[num_written:], start + num_written


def _check_room(url: str, folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise CheckpointError(
            f"{url} takes {byte_text(num_bytes)} and {folder} has {byte_text(free)} left; make room there, or mount a larger "
            f"disk at {cache_folder()}"
        )


@contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    """Holds a file's lock; another process that downloads the same version is waited for."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: waiting for another process that downloads it", url)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """What the cache's own disk refuses, with the way out."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error.strerror or error}): checkpoints from URLs are kept in {cache_folder()}; make it "
            "writable, or mount a disk there"
        ) from error
