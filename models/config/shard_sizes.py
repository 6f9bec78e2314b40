"""Which numbers of shards a network can be split into, before anything is loaded."""

from models.config.model_config import ModelConfig
from models.errors import ConfigError

MAX_SIZE = 64


def check_size(config: ModelConfig, size: int) -> None:
    """Raises:
    ConfigError: the network cannot be split over `size` shards; the text has the sizes that it can.
    """
    if _is_possible(config, size):
        return
    sizes = [str(each) for each in range(1, MAX_SIZE + 1) if _is_possible(config, each)]
    heads, channels = config.num_attention_heads, config.intermediate_size
    raise ConfigError(
        f"tensor_parallel_size was {size}; with {heads} attention heads and {channels:,} channels of the MLP this model "
        f"can be split into {' or '.join([', '.join(sizes[:-1]), sizes[-1]] if len(sizes) > 1 else sizes)}"
    )


def _is_possible(config: ModelConfig, size: int) -> bool:
    """Heads and channels divide; key/value heads are copied where they must be, and the vocabulary is padded. The groups
    of a Mamba mixer are split, or copied to several ranks."""
    if config.num_attention_heads % size or config.intermediate_size % size:
        return False
    mamba = config.mamba
    if mamba is None:
        return True
    return mamba.num_heads % size == 0 and (mamba.num_groups % size == 0 or size % mamba.num_groups == 0)
