"""What "auto" and None stand for when a model is loaded: head, device, dtype, length, attention kernels."""

import logging

import torch

from models.config.model_config import TWO_WAY, ModelConfig
from models.config.types import Head
from models.errors import ConfigError
from models.layers.attention.attention import AttentionBackend
from models.layers.kernels.compiled import native_kernels
from models.layers.kernels.products import computed_dtype
from models.layers.native.library import LONGEST_HEAD, MOST_SHARING

logger = logging.getLogger(__name__)

HEADS: tuple[Head, ...] = (
    "causal",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "embedding",
)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def choose_head(head: str, config: ModelConfig) -> Head:
    """The checkpoint's own head for "auto", else the one named."""
    if head == "auto":
        return config.head
    if head == "causal" and not config.is_causal:
        raise ConfigError(f"head was 'causal', which this checkpoint cannot have: {TWO_WAY}")
    for known in HEADS:
        if head == known:
            return known
    raise ConfigError(f"head was {head!r}; it must be 'auto' or one of {', '.join(HEADS)}")


def choose_device(device: str) -> torch.device:
    """The device named, or a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"device was {device!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:0' and so on")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device was {device!r}, but torch sees no GPU here; use 'cpu' or 'auto'")
    return chosen


def choose_dtype(dtype: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype named, or the checkpoint's own; float32 in place of half precision that a CPU cannot multiply (see
    `computed_dtype`)."""
    name = config.dtype if dtype == "auto" else dtype
    if name not in DTYPES:
        raise ConfigError(f"dtype was {dtype!r}; it must be 'auto' or one of {', '.join(DTYPES)}")
    chosen = DTYPES[name]
    if device.type == "cpu" and computed_dtype(chosen) != chosen:
        logger.info(
            "this CPU has no instructions for %s, or wrong ones: the model is held and computed in float32", name
        )
        return computed_dtype(chosen)
    return chosen


def choose_max_model_len(max_model_len: int | None, config: ModelConfig) -> int:
    """The limit asked for, at most what the checkpoint's positions reach; its `max_position_embeddings` by default."""
    if max_model_len is None:
        return config.max_position_embeddings
    longest = config.longest_context
    if not 1 <= max_model_len <= longest:
        raise ConfigError(
            f"max_model_len was {max_model_len}; it must be from 1 to {longest}, which the checkpoint's "
            "max_position_embeddings and rope scaling allow"
        )
    return max_model_len


def choose_backend(device: torch.device, dtype: torch.dtype, config: ModelConfig) -> AttentionBackend:
    """The attention kernels of a model for a device and a dtype: flash attention on a GPU in half precision, which is all it
    takes; compiled ones on a CPU, where they can be had; else torch's operators, which run anywhere. A model that attends
    both ways has kernels of its own."""
    if not config.is_causal:
        from models.layers.attention import two_way as attention_two_way

        return attention_two_way.backend(dtype, device)
    if device.type == "cuda" and dtype != torch.float32:
        from models.layers.attention import cuda as attention_cuda

        found = attention_cuda.choose(dtype, device, slides="sliding_attention" in config.layer_types)
        if found is not None:
            return found
    library = native_kernels(dtype) if device.type == "cpu" else None
    num_sharing = config.num_attention_heads // config.num_key_value_heads
    if library is not None and config.head_dim <= LONGEST_HEAD and num_sharing <= MOST_SHARING:
        from models.layers.attention import native as attention_native

        return attention_native.backend(library)
    from models.layers.attention import cpu as attention_cpu

    return attention_cpu.backend(dtype, device)
