"""A checkpoint of the Hugging Face hub, in the hub's own cache: `huggingface_hub` downloads, locks and keeps it.

Works from the cache alone where the hub cannot be reached. Its settings (the cache's folder, the token, offline mode) are the hub's own.
"""

from collections.abc import Sequence
from pathlib import Path

from models.checkpoint.files import (
    DESCRIPTION_FILES,
    INDEX_FILE,
    MODULE_FILES,
    SENTENCE_FILES,
    TEMPLATE_FOLDER,
    weight_files,
    why_there_is_no_config,
)
from models.checkpoint.found import FoundCheckpoint, HubId, Parts
from models.errors import CheckpointError

_DESCRIPTION = (
    *DESCRIPTION_FILES,
    *SENTENCE_FILES,
    *(f"[0-9]*_{kind}/{file}" for kind, files in MODULE_FILES.items() for file in files),
    f"{TEMPLATE_FOLDER}/*.jinja",
)


def fetch_hub(hub_id: HubId, *, given: str, parts: Parts, commit: str | None) -> FoundCheckpoint:
    """A repository of the hub; see `models.checkpoint.place.find_checkpoint`. `given` is how it was written; `commit` wins over its
    revision.

    Raises:
        CheckpointError: there is no such repository here or there, or it cannot be read.
    """
    folder = _snapshot(hub_id.repo, commit or hub_id.revision, _DESCRIPTION, given)
    version = folder.name
    names = _names(hub_id.repo, version, folder)
    if "config.json" not in names and "tokenizer.json" not in names:
        raise CheckpointError(why_there_is_no_config(given, names))
    if parts == "whole":
        wanted = weight_files(given, names, folder / INDEX_FILE)
        if not all((folder / name).exists() for name in wanted):
            _snapshot(hub_id.repo, version, wanted, given)
    return FoundCheckpoint(place=given, folder=folder, version=version, weights={"revision": version}, names=names)


def _snapshot(repo: str, revision: str, patterns: Sequence[str], given: str) -> Path:
    """The folder of a commit, with the files of these names in it as far as the repository has them."""
    here = f"{given} is no folder here ({Path(given).absolute()})"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{here}, and for an id of the Hugging Face hub its package is not installed: pip install 'millrace[hub]'"
        ) from error
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # what the hub's own errors are, and those of its HTTP client
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{here}, and as an id of the Hugging Face hub it cannot be read: {reason} (a folder of this machine is best written "
            "with ./ or / before it)"
        ) from error


def _names(repo: str, commit: str, folder: Path) -> list[str]:
    """All files of the commit; where the hub cannot be asked, those that are here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    try:
        return [file.filename for file in snapshot_download(repo, revision=commit, dry_run=True)]
    except DryRunError:
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
