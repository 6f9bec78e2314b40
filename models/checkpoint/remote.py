"""The storage behind a checkpoint's URL: what it says of the files there, and their bytes.

Any file system of fsspec's will do. Knows nothing of where the files go.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from models.checkpoint.files import TEMPLATE_FOLDER, is_description, module_kind, why_there_is_no_config
from models.checkpoint.url_secrets import redacted
from models.errors import CheckpointError

logger = logging.getLogger(__name__)

PIECE_BYTES = 16 << 20
NUM_THREADS = 8

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file of a checkpoint: its path inside it, its key in the file system, its size in bytes, its tag."""

    name: str
    key: str
    size: int
    tag: str

    @property
    def pieces(self) -> range:
        """The bytes at which its pieces begin."""
        return range(0, self.size, PIECE_BYTES)


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


class Remote:
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
            for folder in [name for name, info in found.items() if _is_listed(name, info)]:
                inner = _entries(system, f"{root}/{folder}")
                found |= {f"{folder}/{name}": info for name, info in inner.items()}
            kept = {
                name: str(info["name"])
                for name, info in sorted(found.items())
                if info.get("type") == "file" and (is_description(name) or _may_be_weights(name))
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
            text = redacted(str(error).strip()) or "no text"
            raise CheckpointError(f"{self.url} cannot be read ({type(error).__name__}: {text})") from error


def _is_listed(name: str, info: Mapping[str, Any]) -> bool:
    """Whether this is a folder with files that are read."""
    return info.get("type") != "file" and (name == TEMPLATE_FOLDER or module_kind(name) is not None)


def _may_be_weights(name: str) -> bool:
    return "/" not in name and name.endswith(".safetensors")


def _entries(system: Any, folder: str) -> dict[str, Mapping[str, Any]]:
    """Name to what the file system tells, of everything directly in a folder."""
    found = system.ls(folder, detail=True)
    return {str(info["name"]).rstrip("/").rpartition("/")[2]: info for info in found}


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


def tag_of(info: Mapping[str, Any]) -> str:
    """What an fsspec file system says to tell one version of a file from the next: its ETag, else its modification time; it may be
    nothing."""
    return next((str(info[key]) for key in _TAG_KEYS if info.get(key) is not None), "")


def _remedy(url: str) -> str:
    """How to install what a URL's protocol needs."""
    from fsspec.registry import known_implementations

    protocol = url.partition("://")[0].rpartition("::")[2]
    implementation = known_implementations.get(protocol, {}).get("class", "")
    package = implementation.partition(".")[0]
    return f"pip install {package}" if package not in ("", "fsspec") else "install the package it names"
