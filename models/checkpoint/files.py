"""Which files of a checkpoint are read, and what to say of a place that does not hold them.

Knows names only: the same rules hold for a folder, a listing of an object store and a repository of the hub. What is not read, pickled
weights among it, since a pickle can run code, is told by `models.checkpoint.other_layouts`.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from models.checkpoint.other_layouts import adapter_beside, listed, other_files, pickled, quantized_by_file
from models.checkpoint.shown import shown
from models.checkpoint.whole_files import read_whole
from models.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TEMPLATE_FOLDER = "additional_chat_templates"

DESCRIPTION_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    INDEX_FILE,
)
"""All but the weights and the further chat templates: megabytes, where the weights are gigabytes."""

SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
"""What sentence-transformers writes beside a network: what follows it, prompts, lengths."""

MODULE_FILES: Mapping[str, tuple[str, ...]] = {
    "Pooling": ("config.json",),
    "Dense": ("config.json", SINGLE_FILE),
    "Normalize": ("config.json",),
    "LogitScore": ("config.json",),
}
"""Files of the modules that may follow a network, by the module's class; the second module of a checkpoint has its own in
`1_CLASS`. The weights of a projection are counted among the description: they are megabytes."""

_MODULE_FOLDER = re.compile(rf"[0-9]{{1,2}}_(?P<kind>{'|'.join(MODULE_FILES)})", re.ASCII)


def is_description(name: str) -> bool:
    """Whether a file (its path inside the checkpoint, with forward slashes) is read, and is not the network's weights."""
    folder, _, file = name.rpartition("/")
    if folder == TEMPLATE_FOLDER:
        return file.endswith(".jinja")
    return name in DESCRIPTION_FILES or is_sentence_file(name)


def is_sentence_file(name: str) -> bool:
    """Whether a file is one of sentence-transformers' (`SENTENCE_FILES`, `MODULE_FILES`)."""
    folder, _, file = name.rpartition("/")
    kind = module_kind(folder)
    return name in SENTENCE_FILES if kind is None else file in MODULE_FILES[kind]


def module_kind(folder: str) -> str | None:
    """The class of the module that a folder of a checkpoint belongs to; None if the folder
    is not a module's."""
    found = _MODULE_FOLDER.fullmatch(folder)
    return None if found is None else found["kind"]


def sentence_files(folder: Path) -> list[str]:
    """The sentence-transformers files in a folder, by name."""
    names = [*SENTENCE_FILES, *(f"{path.name}/{file}" for path in folder.glob("*_*") for file in _files_of(path.name))]
    return sorted(name for name in names if (folder / name).is_file())


def _files_of(folder: str) -> tuple[str, ...]:
    kind = module_kind(folder)
    return () if kind is None else MODULE_FILES[kind]


def weight_files(place: str, names: Collection[str], read_index: Path) -> list[str]:
    """The weight files that are loaded from a place that holds `names`; `read_index` is its index, if it has one.

    Raises:
        CheckpointError: it holds no safetensors weights, or an adapter or the settings of another quantizer beside them, or the
            index is broken or names shards that are not there.
    """
    if SINGLE_FILE in names or INDEX_FILE in names:
        refused = adapter_beside(place, names) or quantized_by_file(place, names)
        if refused is not None:
            raise CheckpointError(refused)
    if SINGLE_FILE in names:
        return [SINGLE_FILE]
    if INDEX_FILE not in names:
        raise CheckpointError(why_there_are_no_weights(place, names))
    shards = sorted(set(shards_by_tensor(read_index).values()))
    missing = [name for name in shards if name not in names]
    if missing:
        raise CheckpointError(
            f"{place}/{INDEX_FILE} names shards that are not there: {listed(missing)}; download the checkpoint again"
        )
    return shards


def shards_by_tensor(index: Path) -> Mapping[str, str]:
    """Tensor name to shard name, as the index has them.

    Raises:
        CheckpointError: it is not an index, or names something that is not a safetensors file
            beside it.
    """
    try:
        weight_map = json.loads(read_whole(index))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index} cannot be read as a safetensors index: {error!r}; download it again") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: weight_map must be an object from tensor names to file names; download it again"
        )
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names the shard {shown(name)}; it must be a .safetensors file in the same folder"
            )
    return weight_map


def why_there_is_no_config(place: str, names: Collection[str]) -> str:
    """What to tell of a place without config.json."""
    if another := other_files(place, names):
        return another
    if pickles := pickled(names):
        return f"{place} has no config.json, {pickles}"
    return f"{place} has no config.json: give a Hugging Face checkpoint folder"


def why_it_is_no_folder(path: Path) -> str:
    """What to tell of a path that should be a checkpoint folder and is not."""
    if path.is_file():
        holds = other_files(str(path.parent), [path.name]) or f"give the folder that it lies in, {path.parent}"
        return f"{path} is a file and is not a folder: {holds}"
    return f"{path} is not a folder: give a Hugging Face checkpoint folder"


def why_there_are_no_weights(place: str, names: Collection[str]) -> str:
    """What to tell of a place with neither `model.safetensors` nor an index."""
    wanted = f"{place} has neither {SINGLE_FILE} nor {INDEX_FILE}"
    if another := other_files(place, names):
        return another
    if others := sorted(name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))):
        return (
            f"{wanted}, but {listed(others)}: rename a single file to {SINGLE_FILE}, or bring the index of the shards"
        )
    if pickles := pickled(names):
        return f"{wanted}, {pickles}"
    return f"{wanted}: it holds no weights; give a folder with a complete checkpoint"
