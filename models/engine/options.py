"""How an engine is sized: the settings that Python, job specs and service specs share."""

from dataclasses import dataclass

from models.errors import ConfigError

ONLINE_PART = 4
"""The budget of a step with online requests is the full one divided by this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """None leaves a value to the checkpoint or the device.

    `max_model_len` tokens a sequence may have, prompt and output together; `max_num_seqs` sequences run at once; a
    step computes at most `max_num_batched_tokens`, and while there are online requests `online_batched_tokens`, so that
    what batch requests add to a step does not make online ones wait; the KV cache takes `cache_bytes`, or on a GPU what
    `gpu_memory_fraction` of it leaves after the weights, both a shard's. `tensor_parallel_size` shards hold the model.

    Raises:
        ConfigError: a value is out of its range; the text names the option.
    """

    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    online_batched_tokens: int | None = None
    block_size: int | None = None
    cache_bytes: int | None = None
    gpu_memory_fraction: float | None = None
    tensor_parallel_size: int = 1

    def __post_init__(self) -> None:
        for name in (
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
            "online_batched_tokens",
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
        if self.max_num_batched_tokens is not None:
            self.online_budget(self.max_num_batched_tokens, self.max_num_seqs)

    def online_budget(self, max_num_batched_tokens: int, max_num_seqs: int) -> int:
        """The most tokens of a step while there are online requests, given what the device settled for the other two. By
        default a quarter of the full budget, but a token for every sequence if it has that many.

        Raises:
            ConfigError: it is more than a step ever computes.
        """
        given = self.online_batched_tokens
        if given is None:
            return min(max(max_num_batched_tokens // ONLINE_PART, max_num_seqs), max_num_batched_tokens)
        if given > max_num_batched_tokens:
            raise ConfigError(
                f"engine option online_batched_tokens was {given}; it must be at most max_num_batched_tokens, which is "
                f"{max_num_batched_tokens}"
            )
        return given
