"""Which tensors a checkpoint folder has, under their canonical names, and where they lie. Reads headers alone, without torch.

Canonical names have no prefix: bodies are published as `model.*` (most classes), `transformer.*` (question
answering) or bare (base models), and any task head may stand on any of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from models.checkpoint.files import INDEX_FILE, SINGLE_FILE, shards_by_tensor, weight_files, why_it_is_no_folder
from models.checkpoint.other_layouts import listed, other_tensors
from models.errors import CheckpointError

LM_HEAD = "lm_head.weight"
EMBEDDING = "embed_tokens.weight"
HEAD_NAMES = frozenset({LM_HEAD, "score.weight", "score.bias", "qa_outputs.weight", "qa_outputs.bias"})

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 8
"""What is read of a checkpoint: the header of a file, the tensors of all files together, the dimensions of one."""

_GIVE_ANOTHER = "give the checkpoint as it was published"
_BODY_PREFIXES = ("model.", "transformer.")
_OLD_NAMES = {"classifier.weight": "score.weight", "classifier.bias": "score.bias"}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """Where one tensor lies: its file, its name there, its place in reading order, and what it is."""

    file: Path
    name: str
    position: int
    shape: tuple[int, ...]
    dtype: str


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """What `model.safetensors` holds, or the shards that `model.safetensors.index.json` names, by canonical name.

    Raises:
        CheckpointError: there are no safetensors weights, or they are in a layout that is not read, a file is missing, cut
            short or corrupt, or index and shards disagree.
    """
    tensors: dict[str, StoredTensor] = {}
    stored = _list_tensors(folder)
    if another := other_tensors(str(folder), {tensor.name: tensor.dtype for tensor in stored}):
        raise CheckpointError(another)
    for tensor in stored:
        if _is_derived(tensor.name):
            continue
        name = _canonical_name(tensor.name)
        if name in tensors:
            raise CheckpointError(
                f"{folder} holds both {tensors[name].name} and {tensor.name}, which name one tensor; remove one"
            )
        tensors[name] = tensor
    return tensors


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turns what safetensors raises into an error that says what to do."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{file} is cut short or corrupt ({error}); download it again") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error}); check its path and permissions") from error


def _list_tensors(folder: Path) -> list[StoredTensor]:
    """Every stored tensor in reading order: file by file, by offset."""
    if not folder.is_dir():
        raise CheckpointError(why_it_is_no_folder(folder))
    shards = weight_files(str(folder), {file.name for file in folder.iterdir()}, folder / INDEX_FILE)
    stored: list[StoredTensor] = []
    for name in shards:
        stored += _read_header(folder / name, most=MAX_TENSORS - len(stored))
    if shards == [SINGLE_FILE]:
        return stored
    file_names = shards_by_tensor(folder / INDEX_FILE)
    found = {(tensor.name, tensor.file.name) for tensor in stored}
    misplaced = [f"{name} in {file}" for name, file in file_names.items() if (name, file) not in found]
    if misplaced:
        raise CheckpointError(
            f"{folder / INDEX_FILE} says where tensors are that are not there: {listed(misplaced)}; "
            "index and shards are from different checkpoints: download it again"
        )
    return [tensor for tensor in stored if file_names.get(tensor.name) == tensor.file.name]


def _read_header(file: Path, *, most: int) -> list[StoredTensor]:
    """The tensors of a file, at most `most` of them."""
    with readable(file):
        _check_header(file)
        with safe_open(str(file), framework="numpy") as opened:
            names = opened.offset_keys()
            if len(names) > most:
                raise CheckpointError(f"{file.parent} holds more than {MAX_TENSORS:,} tensors; {_GIVE_ANOTHER}")
            slices: list[tuple[str, Any]] = [(name, opened.get_slice(name)) for name in names]
            stored = [
                StoredTensor(
                    file=file, name=name, position=position, shape=tuple(part.get_shape()), dtype=part.get_dtype()
                )
                for position, (name, part) in enumerate(slices)
            ]
    many = next((tensor.name for tensor in stored if len(tensor.shape) > MAX_DIMENSIONS), None)
    if many is not None:
        raise CheckpointError(f"{file}: {many} has more than {MAX_DIMENSIONS} dimensions; {_GIVE_ANOTHER}")
    return stored


def _check_header(file: Path) -> None:
    """A safetensors file begins with the size of its header in 8 bytes; a header is read whole.

    Raises:
        CheckpointError: it is not a file, or its header is too large to be one.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} cannot be read: it is no regular file; {_GIVE_ANOTHER}")
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file} is cut short or corrupt (its header has {size:,} bytes, of at most {MAX_HEADER_BYTES:,}); download it again"
        )


def _canonical_name(name: str) -> str:
    """The name without its body's prefix; task heads never have one."""
    name = _OLD_NAMES.get(name, name)
    for prefix in _BODY_PREFIXES:
        if name.startswith(prefix) and name.removeprefix(prefix) not in HEAD_NAMES:
            return name.removeprefix(prefix)
    return name


def _is_derived(name: str) -> bool:
    """Old files hold rotary frequencies, which follow from the configuration."""
    return name.split(".")[-2:] == ["rotary_emb", "inv_freq"]
