"""Checks of a checkpoint whose files somebody has spoiled: it is loaded, or refused with an error of ours, in little time and memory."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from models.checkpoint.stored_tensors import stored_tensors
from models.config.agreement import check_agreement
from models.config.model_config import ModelConfig
from models.errors import CheckpointError, ConfigError, ModelError, TokenizerError
from models.loading.load import load_model
from models.text.tokenizer import Tokenizer
from tests.helpers.models.odd_files import as_json, flipped, safetensors_head, spoiled

CONFIG_NAMES = """
num_labels id2label rope_scaling rope_parameters rope_theta layer_types layers_block_type no_rope_layers
factor type rope_type sliding_window use_sliding_window head_dim num_key_value_heads eos_token_id
quantization_config original_max_position_embeddings partial_rotary_factor is_causal
use_bidirectional_attention architectures mamba_expand
""".split()  # noqa: SIM905 - a list of so many words is read better so
ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 64},
)  # fmt: skip
TOKENIZER_NAMES = """
added_tokens normalizer pre_tokenizer post_processor decoder model type vocab merges pattern Regex String
content id truncation padding pretokenizers normalizers unk_token byte_fallback precompiled_charsmap
""".split()  # noqa: SIM905 - a list of so many words is read better so
TOKENIZER_CONFIG_NAMES = """
added_tokens_decoder bos_token chat_template extra_special_tokens additional_special_tokens content lstrip
__type name template 0 600 -1 x_token
""".split()  # noqa: SIM905 - a list of so many words is read better so
MAX_GROWTH_BYTES = 256 << 20
MAX_TEXT_CHARS = 20_000


@contextmanager
def loaded_or_refused(*kinds: type[ModelError]) -> Iterator[None]:
    """Takes errors of these kinds, whose texts are no longer than somebody reads, and in little memory."""
    try:
        with little_memory():
            yield
    except kinds as error:
        text = str(error)
    else:
        return
    assert len(text) < MAX_TEXT_CHARS


@contextmanager
def little_memory() -> Iterator[None]:
    """The peak of this process's memory, which torch and the tokenizers' threads count into, grows by little."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MAX_GROWTH_BYTES, f"it took {grown:,} bytes"


def copied(folder: Path, to: Path) -> Path:
    """A checkpoint whose files may be changed."""
    return Path(shutil.copytree(folder, to))


def odd_configs(config: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Spoiled texts of a config.json, with rotary embeddings of several kinds."""
    with_rope = st.sampled_from([config, *({**config, "rope_scaling": rope} for rope in ROPES)])
    trees = with_rope.flatmap(lambda value: spoiled(value, CONFIG_NAMES)).map(as_json)
    return trees | flipped(as_json(config))


def check_config(folder: Path, content: bytes) -> None:
    """A model of this config.json is loaded, or refused."""
    (folder / "config.json").write_bytes(content)
    with loaded_or_refused(ConfigError, CheckpointError):
        ModelConfig.from_pretrained(folder)
        load_model(folder, device="cpu", max_model_len=1)  # tables of positions take what is asked for, if it is free


def odd_headers(content: bytes) -> st.SearchStrategy[bytes]:
    """Spoiled beginnings of a safetensors file: the size of its header, and the header."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    sizes = st.none() | st.sampled_from([0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1])
    trees = st.builds(
        lambda value, told: safetensors_head(as_json(value), size=told), spoiled(header, ("dtype", "shape")), sizes
    )
    return trees | flipped(content[: 8 + size])


def check_weights(folder: Path, head: bytes, data: bytes) -> None:
    """Weights with this beginning are loaded, or refused."""
    (folder / "model.safetensors").write_bytes(head + data)
    with loaded_or_refused(CheckpointError):
        check_agreement(ModelConfig.from_pretrained(folder), stored_tensors(folder), folder)
        load_model(folder, device="cpu")


def check_index(folder: Path, content: bytes) -> None:
    """An index of this content leads to files of this folder, or is refused."""
    (folder / "model.safetensors.index.json").write_bytes(content)
    with loaded_or_refused(CheckpointError):
        assert {tensor.file.parent for tensor in stored_tensors(folder).values()} == {folder}


def check_tokenizer(folder: Path, name: str, content: bytes) -> None:
    """A tokenizer with this file is loaded, or refused."""
    before = (folder / name).read_bytes() if (folder / name).exists() else None
    (folder / name).write_bytes(content)
    try:
        with loaded_or_refused(TokenizerError):
            Tokenizer.from_pretrained(folder)
    finally:
        (folder / name).unlink() if before is None else (folder / name).write_bytes(before)
