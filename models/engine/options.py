"""How an engine is sized: the settings that Python, job specs and service specs share."""

from dataclasses import dataclass

from models.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """None leaves a value to the checkpoint or the device.

    `max_model_len` tokens a sequence may have, prompt and output together; `max_num_seqs` sequences run at once; a
    step computes at most `max_num_batched_tokens`; the KV cache takes `cache_bytes`, or on a GPU what
    `gpu_memory_fraction` of it leaves after the weights, both a shard's. `tensor_parallel_size` shards hold the model.

    Raises:
        ConfigError: a value is out of its range; the text names the option.
    """

    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    cache_bytes: int | None = None
    gpu_memory_fraction: float | None = None
    tensor_parallel_size: int = 1

    def __post_init__(self) -> None:
        for name in (
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
            "block_size",
            "cache_bytes",
            "tensor_parallel_size",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"engine option {name} was {value}; it must be at least 1")
        fraction = self.gpu_memory_fraction
        if fraction is not None and not 0.0 < fraction <= 1.0:
            raise ConfigError(f"engine option gpu_memory_fraction was {fraction}; it must be over 0 and at most 1")
