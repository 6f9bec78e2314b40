"""Where a checkpoint is, as people write it, turned into a folder of this machine.

    found = find_checkpoint("s3://bucket/qwen3-4b")     # a path, an fsspec URL, or a hub id: Qwen/Qwen3-4B, Qwen/Qwen3-4B@main
    found.folder                                        # everything else takes this

A folder that exists always wins; `./x`, `/x` and `~` are never hub ids, and whatever has a `://` is a URL. What is not on this machine is
brought here once, whole files, and shared by every process (docs/decisions/0007). `parts="description"` brings all but the weights:
configuration, tokenizer and templates, which is what a driver or a reading task needs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoint.found import FoundCheckpoint, HubId, Parts
from models.checkpoint.shown import shown
from models.checkpoint.url_secrets import has_secret
from models.checkpoint.whole_files import read_whole
from models.errors import CheckpointError

_HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"\w[\w.-]*", re.ASCII)
_MAIN = "main"
_FILE = "file://"


def find_checkpoint(
    path: str | Path,
    *,
    parts: Parts = "whole",
    storage_options: Mapping[str, Any] | None = None,
    version: str | None = None,
) -> FoundCheckpoint:
    """The checkpoint at `path`, with at least these parts of it in its folder.

    `storage_options` are fsspec's, for URLs only. `version` is one that was found before: another one is an error, and what is here
    already is not asked for again. A local folder is returned unseen; those who read it say what it lacks.

    Raises:
        CheckpointError: the place cannot be read, needs a package that is not installed, or holds another version.
    """
    text = str(path)
    if isinstance(path, str) and _is_url(text):
        from models.checkpoint.url import fetch_url

        return fetch_url(text, parts=parts, options=storage_options or {}, version=version)
    folder = Path(text.removeprefix(_FILE)).expanduser()
    hub_id = _hub_id(path)
    if hub_id is not None and (version is not None or not folder.is_dir()):
        from models.checkpoint.hub import fetch_hub

        return fetch_hub(hub_id, given=text, parts=parts, commit=version)
    return FoundCheckpoint(place=text, folder=_snapshot_in(folder))


def local_folder(path: str | Path) -> Path:
    """The folder of a whole checkpoint; see `find_checkpoint`."""
    return find_checkpoint(path).folder


def description_folder(path: str | Path) -> Path:
    """A folder with all of a checkpoint but its weights; see `find_checkpoint`."""
    return find_checkpoint(path, parts="description").folder


def is_local(path: str | Path) -> bool:
    """Whether `path` names a folder of this machine: it is no URL, and no hub id that is not also a folder here."""
    if isinstance(path, str) and _is_url(path):
        return False
    return _hub_id(path) is None or Path(path).is_dir()


def _is_url(text: str) -> bool:
    """Whether fsspec is to open it.

    Raises:
        CheckpointError: it is a URL with a secret in it, which would go wherever paths go.
    """
    if "://" not in text or text.startswith(_FILE):
        return False
    if has_secret(text):
        raise CheckpointError(
            "the checkpoint's URL has a password, a signature or a token in it; "
            "give it in model.storage_options or in the configuration of the storage, "
            "since paths are written to reports"
        )
    return True


def _hub_id(path: str | Path) -> HubId | None:
    found = _HUB_ID.fullmatch(path) if isinstance(path, str) else None
    return None if found is None else HubId(repo=found["repo"], revision=found["revision"] or _MAIN)


def _snapshot_in(folder: Path) -> Path:
    """The folder itself, or what `main` is in a folder of the hub's cache (`models--org--name`)."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir() or (folder / "config.json").exists():
        return folder
    main = folder / "refs" / _MAIN
    if main.is_file():
        return snapshots / _commit_in(main)
    found = sorted(path for path in snapshots.iterdir() if path.is_dir())
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(
            f"{folder} is a folder of the hub's cache without refs/{_MAIN}, and its snapshots are: {names}; give the path of one"
        )
    return found[0]


def _commit_in(ref: Path) -> str:
    """The name of the snapshot that a ref of the hub's cache stands for.

    Raises:
        CheckpointError: it names none.
    """
    try:
        commit = read_whole(ref).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{ref} cannot be read: {error}; give the path of a snapshot") from error
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError(f"{ref} holds {shown(commit)}, which is the name of no snapshot; give the path of one")
    return commit
