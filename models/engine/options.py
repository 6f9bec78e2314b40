"""How an engine is sized: the options that Python, job specs and service specs share."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from models.config.option import Option, check_options
from models.errors import OptionError

ONLINE_PART = 4
"""The budget of a step with online requests is the full one divided by this."""

BATCH_WINDOW = 2
"""Batch requests whose order is chosen together, for each sequence that runs at once."""

MAX_SEQS = 1 << 16
DEFAULT_STATE_STRIDE_TOKENS = 512
KIND = "engine option"
"""What errors call one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """None leaves a value to the checkpoint or the device. `cache_bytes` and `gpu_memory_fraction` are a shard's.

    While there are online requests a step computes less, so that what batch requests add to it does not make them wait.

    Raises:
        OptionError: a value is out of its range, or does not go with another.
    """

    tensor_parallel_size: Annotated[
        int, Option("shards of one engine, each with part of the model: a GPU each where there are any", least=1)
    ] = 1
    max_model_len: Annotated[
        int | None,
        Option("longest sequence, prompt and answer together", unit="tokens", least=1, unset="the checkpoint's"),
    ] = None
    max_num_seqs: Annotated[int, Option("sequences that run at once", least=1, most=MAX_SEQS)] = 256
    max_num_batched_tokens: Annotated[
        int | None, Option("what one step computes at most", unit="tokens", least=1, unset="by device")
    ] = None
    online_batched_tokens: Annotated[
        int | None,
        Option(
            "in a service spec: what a step computes while online requests run, so that a job's rows do not make them wait",
            unit="tokens",
            least=1,
            unset="a quarter of `max_num_batched_tokens`, but at least `max_num_seqs`",
        ),
    ] = None
    block_size: Annotated[int | None, Option("a page of the KV cache", unit="tokens", least=1, unset="by device")] = (
        None
    )
    state_stride: Annotated[
        int | None,
        Option(
            "blocks between the states of a recurrent network (Zamba2) that are kept for prompts that begin alike; 0: none are kept",
            least=0,
            unset="512 tokens",
        ),
    ] = None
    cache_bytes: Annotated[
        int | None, Option("size of a shard's KV cache", unit="bytes", least=1, unset="by free memory")
    ] = None
    gpu_memory_fraction: Annotated[
        float | None,
        Option(
            "in place of `cache_bytes`: the part of a GPU that weights and cache may take together",
            above=0,
            most=1,
            unset="by free memory",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_options(self, KIND)
        if self.cache_bytes is not None and self.gpu_memory_fraction is not None:
            problem = "stands beside cache_bytes; both size the cache, give one"
            raise OptionError("gpu_memory_fraction", problem, KIND)
        if self.max_num_batched_tokens is not None:
            self.online_budget(self.max_num_batched_tokens, self.max_num_seqs)

    def state_stride_blocks(self, block_size: int) -> int:
        """Blocks between kept states, where a block has so many tokens; 0: none are kept."""
        if self.state_stride is None:
            return max(1, DEFAULT_STATE_STRIDE_TOKENS // block_size)
        return self.state_stride

    def online_budget(self, max_num_batched_tokens: int, max_num_seqs: int) -> int:
        """The most tokens of a step while there are online requests, given what the device settled for the other two. By
        default a quarter of the full budget, but a token for every sequence if it has that many.

        Raises:
            OptionError: it is more than a step ever computes.
        """
        given = self.online_batched_tokens
        if given is None:
            return min(max(max_num_batched_tokens // ONLINE_PART, max_num_seqs), max_num_batched_tokens)
        if given > max_num_batched_tokens:
            problem = f"was {given}; it must be at most max_num_batched_tokens, which is {max_num_batched_tokens}"
            raise OptionError("online_batched_tokens", problem, KIND)
        return given


class EngineKeywords(TypedDict, total=False):
    """The same options as keywords of a function, for type checkers, which cannot make them from the dataclass."""

    tensor_parallel_size: int
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int | None
    online_batched_tokens: int | None
    block_size: int | None
    state_stride: int | None
    cache_bytes: int | None
    gpu_memory_fraction: float | None
