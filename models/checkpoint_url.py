"""A checkpoint at a URL, brought to this machine once for all its processes.

    ~/.cache/millrace/checkpoints/<url>/<version>/       one folder a version; a changed remote has another one
                                       .files.json       what the version is made of: names, sizes, tags
                                       model.safetensors in place once it is whole
                                       .model.safetensors.part
                                  <version>.lock         held by the process that downloads; the system frees it if that dies

A version is what the remote says of its files: names, sizes, and their ETags or modification times. A file is written aside, in pieces
read several at a time, compared with the remote once more, and renamed when all of it is on disk: what has its name is whole, and a
killed download goes on at the file where it was. Nobody is told of a folder before all the files that he asked for are in it.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoint_files import (
    INDEX_FILE,
    TEMPLATE_FOLDER,
    is_description,
    weight_files,
    why_there_is_no_config,
)
from models.checkpoint_place import FoundCheckpoint, Parts
from models.errors import CheckpointError

logger = logging.getLogger(__name__)

PIECE_BYTES = 16 << 20
NUM_THREADS = 8

_MANIFEST = ".files.json"
_ATTEMPTS, _FIRST_WAIT_S = 4, 0.5
_FINAL = (FileNotFoundError, PermissionError, NotImplementedError, ImportError)
_TAG_KEYS = (
    "ETag",
    "etag",
    "e_tag",
    "md5Hash",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)


def tag_of(info: Mapping[str, Any]) -> str:
    """What an fsspec file system says to tell one version of a file from the next: its ETag, else its modification time; it may be
    nothing."""
    return next((str(info[key]) for key in _TAG_KEYS if info.get(key) is not None), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file of a checkpoint: its path inside it, its key in the file system, its size in bytes, its tag."""

    name: str
    key: str
    size: int
    tag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One version of a checkpoint: those of its files that can be needed, by name; `others` are names that only errors tell of."""

    files: Mapping[str, RemoteFile]
    others: tuple[str, ...]

    @property
    def version(self) -> str:
        """Twenty hexadecimal digits that stand for all names, sizes and tags."""
        told = [(file.name, file.size, file.tag) for _, file in sorted(self.files.items())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:20]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.files, *self.others)

    def to_json(self) -> str:
        return json.dumps({"files": [asdict(file) for file in self.files.values()], "others": self.others}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        fields = json.loads(text)
        files = {file["name"]: RemoteFile(**file) for file in fields["files"]}
        return cls(files=files, others=tuple(fields["others"]))


def fetch_url(url: str, *, parts: Parts, options: Mapping[str, Any], version: str | None) -> FoundCheckpoint:
    """The checkpoint at an fsspec URL; see `models.checkpoint_place.find_checkpoint`.

    Raises:
        CheckpointError: it cannot be read, has no weights, has changed, or does not fit on the disk.
    """
    home = _home_of(url)
    manifest = None if version is None else _read_manifest(home / version)
    remote = _Remote(url, options)
    if manifest is None:
        manifest = remote.list()
        if version is not None and manifest.version != version:
            raise CheckpointError(
                f"{url} is version {manifest.version} now, and was {version} when the run began: its files were written again; "
                "start the run again, with a new output.path"
            )
        _write_whole(home / manifest.version / _MANIFEST, manifest.to_json())
    folder = home / manifest.version
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


class _Remote:
    """The file system behind one URL. Everything it raises is a `CheckpointError` that names the URL; options are never told."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url, self._options = url, options
        self._opened: tuple[Any, str] | None = None

    def list(self) -> Manifest:
        """What is there now, past every cache."""
        with self._telling():
            system, root = self._open()
            system.invalidate_cache()
            found = _entries(system, root)
            if TEMPLATE_FOLDER in found:
                templates = _entries(system, f"{root}/{TEMPLATE_FOLDER}")
                found |= {f"{TEMPLATE_FOLDER}/{name}": info for name, info in templates.items()}
            kept = {
                name: str(info["name"])
                for name, info in sorted(found.items())
                if info.get("type") == "file" and (is_description(name) or name.endswith(".safetensors"))
            }
            system.invalidate_cache()
            with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="listing") as pool:
                files = dict(zip(kept, pool.map(self._stat, kept, kept.values()), strict=True))
        others = tuple(name for name, info in sorted(found.items()) if info.get("type") == "file" and name not in files)
        if "config.json" not in files and "tokenizer.json" not in files:
            raise CheckpointError(why_there_is_no_config(self.url, [*files, *others]))
        return Manifest(files=files, others=others)

    def read(self, file: RemoteFile, start: int) -> bytes:
        """The piece that begins at byte `start`."""
        end = min(start + PIECE_BYTES, file.size)
        with self._telling():
            system, _ = self._open()
            piece = _with_retries(lambda: bytes(system.cat_file(file.key, start=start, end=end)))
        if len(piece) != end - start:
            raise CheckpointError(
                f"{self.url}/{file.name} ends at byte {start + len(piece)}, before {end}: it has changed"
            )
        return piece

    def check_unchanged(self, file: RemoteFile) -> None:
        """Raises CheckpointError if the file is not the one that was listed."""
        with self._telling():
            system, _ = self._open()
            system.invalidate_cache()
            now = self._stat(file.name, file.key)
        if (now.size, now.tag) != (file.size, file.tag):
            raise CheckpointError(f"{self.url}/{file.name} was written while it was being downloaded; try again")

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            system, root = fsspec.core.url_to_fs(self.url, **self._options)
            self._opened = system, str(root).rstrip("/")
        return self._opened

    def _stat(self, name: str, key: str) -> RemoteFile:
        """Asks for one file: what listings tell is not comparable everywhere."""
        info = self._open()[0].info(key)
        if info.get("size") is None:
            raise CheckpointError(
                f"{self.url}/{name}: its storage does not tell its size; copy the checkpoint to a folder"
            )
        return RemoteFile(name=name, key=key, size=int(info["size"]), tag=tag_of(info))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (CheckpointError, AssertionError, MemoryError):
            raise
        except ImportError as error:
            raise CheckpointError(f"{self.url} cannot be opened: {error} ({_remedy(self.url)})") from error
        except FileNotFoundError as error:
            raise CheckpointError(
                f"there is nothing at {self.url}; check the URL, and model.storage_options"
            ) from error
        except Exception as error:  # every fsspec back end has an error tree of its own
            text = str(error).strip() or "no text"
            raise CheckpointError(f"{self.url} cannot be read ({type(error).__name__}: {text})") from error


def _entries(system: Any, folder: str) -> dict[str, Mapping[str, Any]]:
    """Name to what the file system tells, of everything directly in a folder."""
    found = system.ls(folder, detail=True)
    return {str(info["name"]).rstrip("/").rpartition("/")[2]: info for info in found}


def _remedy(url: str) -> str:
    """How to install what a URL's protocol needs."""
    from fsspec.registry import known_implementations

    protocol = url.partition("://")[0].rpartition("::")[2]
    implementation = known_implementations.get(protocol, {}).get("class", "")
    package = implementation.partition(".")[0]
    return f"pip install {package}" if package not in ("", "fsspec") else "install the package it names"


def _home_of(url: str) -> Path:
    """Where the versions of a URL are kept: its name is for people, its hash for us."""
    url = url.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", url)[-60:].strip("-.")
    return cache_folder() / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def cache_folder() -> Path:
    """Where downloaded checkpoints are kept, under the home folder of whoever runs this."""
    return Path.home() / ".cache" / "millrace" / "checkpoints"


def _read_manifest(folder: Path) -> Manifest | None:
    file = folder / _MANIFEST
    return Manifest.from_json(file.read_text(encoding="utf-8")) if file.exists() else None


def _write_whole(file: Path, text: str) -> None:
    """In one step; whoever writes it at the same time writes the same."""
    if file.exists():
        return
    with _on_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)


def _download(remote: _Remote, folder: Path, files: Sequence[RemoteFile]) -> None:
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


def _download_one(remote: _Remote, file: RemoteFile, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    with draft.open("wb") as out:
        out.truncate(file.size)
        pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="download")
        try:
            for _ in pool.map(partial(_copy_piece, remote, file, out.fileno()), range(0, file.size, PIECE_BYTES)):
                pass
        finally:  # before the file is closed: no thread may write to its number after that
            pool.shutdown(cancel_futures=True)
        os.fsync(out.fileno())
    remote.check_unchanged(file)
    draft.replace(target)


def _copy_piece(remote: _Remote, file: RemoteFile, out: int, start: int) -> None:
    piece = memoryview(remote.read(file, start))
    while piece:
        num_written = os.pwrite(out, piece, start)
        piece, start = piece[num_written:], start + num_written


def _check_room(url: str, folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise CheckpointError(
            f"{url} takes {num_bytes / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left; make room there, or mount a larger "
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


def _with_retries(read: Callable[[], bytes]) -> bytes:
    """Calls `read` until it succeeds, a few times, waiting twice as long after each failure."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return read()
        except _FINAL:
            raise
        except Exception as error:  # noqa: BLE001 - every fsspec back end has an error tree of its own
            wait_s = _FIRST_WAIT_S * 2**attempt
            logger.warning("a download was interrupted (%s), next attempt in %.1f s", type(error).__name__, wait_s)
            time.sleep(wait_s)
    return read()
