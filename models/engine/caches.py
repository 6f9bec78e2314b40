"""The tensors behind the block pool and the sequence slots: paged keys and values and recurrent states for every call
site, sized from a number of bytes.

On a GPU the default is what `gpu_memory_fraction` of the device leaves after the weights; on the CPU a fixed part of
the memory that is free. Memory is reserved lazily there: pages that no sequence ever used cost nothing.
"""

import logging
from collections.abc import Sequence

import torch

from models.errors import ConfigError
from models.layers.attention.attention import AttentionBackend, KvCache, KvSpec
from models.layers.state import Cache, Spec, StateCache, StateSpec
from models.loading.free_memory import free_memory

logger = logging.getLogger(__name__)

DEFAULT_GPU_FRACTION = 0.9
DEFAULT_CPU_FRACTION = 0.25
MAX_DEFAULT_CPU_BYTES = 4 * 2**30
MAX_STATE_FRACTION = 0.5  # of the cache's bytes that recurrent states may take
SNAPSHOT_FRACTION = 0.25  # of what these leave, for states that are kept for prompts to come


def state_bytes(specs: Sequence[Spec], dtype: torch.dtype) -> int:
    """Bytes of one sequence's recurrent states, over all call sites."""
    return sum(spec.bytes_per_sequence(dtype) for spec in specs if isinstance(spec, StateSpec))


def token_bytes(specs: Sequence[Spec], dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values, over all call sites."""
    return sum(spec.bytes_per_token(dtype) for spec in specs if isinstance(spec, KvSpec))


def num_slots_for(specs: Sequence[Spec], *, cache_bytes: int, dtype: torch.dtype, max_num_seqs: int) -> int:
    """How many sequences can run at once: `max_num_seqs`, or as many as have room for their states in
    `MAX_STATE_FRACTION` of `cache_bytes`, which is logged. A network without states needs none.

    Raises:
        ConfigError: there is no room for one.
    """
    per_sequence = state_bytes(specs, dtype)
    if not per_sequence:
        return max_num_seqs
    slots = min(int(MAX_STATE_FRACTION * cache_bytes) // per_sequence, max_num_seqs)
    if slots < 1:
        raise ConfigError(
            f"a cache of {cache_bytes:,} bytes has no room for the state of one sequence, which takes {per_sequence:,}, beside "
            f"keys and values: raise cache_bytes to at least {int(per_sequence / MAX_STATE_FRACTION):,}"
        )
    if slots < max_num_seqs:
        logger.warning(
            "max_num_seqs is %d, but only %d sequences run at once: the state of each takes %d bytes, and half of a cache "
            "of %d is for states; raise cache_bytes for more",
            max_num_seqs, slots, per_sequence, cache_bytes,
        )  # fmt: skip
    return slots


def num_snapshots_for(
    specs: Sequence[Spec],
    *,
    cache_bytes: int,
    dtype: torch.dtype,
    max_num_seqs: int,
    max_model_len: int,
    stride_tokens: int,
) -> int:
    """How many states are kept for prompts that begin alike: those that `SNAPSHOT_FRACTION` of
    what running sequences' states leave of `cache_bytes` has room for, but no more than all
    sequences at full length could leave, with one each `stride_tokens` and one more; 0 for a
    network without states, or if `stride_tokens` is 0. That there is no room for one is logged."""
    per_sequence = state_bytes(specs, dtype)
    if not (per_sequence and stride_tokens):
        return 0
    room = int(SNAPSHOT_FRACTION * (cache_bytes - max_num_seqs * per_sequence)) // per_sequence
    if not room:
        logger.warning(
            "a cache of %d bytes has no room to keep the state of a prefix, which takes %d: prompts that begin alike are computed "
            "whole; raise cache_bytes, or set state_stride to 0",
            cache_bytes, per_sequence,
        )  # fmt: skip
    return min(room, max_num_seqs * (1 + max_model_len // stride_tokens))


def num_blocks_for(
    specs: Sequence[Spec],
    *,
    cache_bytes: int,
    block_size: int,
    dtype: torch.dtype,
    max_num_seqs: int,
    max_model_len: int,
    num_snapshots: int = 0,
) -> int:
    """How many blocks `cache_bytes` hold beside the states of `max_num_seqs` sequences and
    `num_snapshots` kept ones, over all call sites; never more than every sequence at full length
    could use.

    Raises:
        ConfigError: not one block fits. A request that needs more than all blocks is refused when it comes.
    """
    block_bytes = block_size * token_bytes(specs, dtype)
    per_sequence = -(-max_model_len // block_size)
    blocks = max_num_seqs * per_sequence
    if block_bytes:  # a network may have no attention at all
        num_states = max_num_seqs + num_snapshots
        blocks = min((cache_bytes - num_states * state_bytes(specs, dtype)) // block_bytes, blocks)
    if blocks < 1:
        raise ConfigError(
            f"a cache of {cache_bytes:,} bytes holds no block of {block_size} tokens, which takes {block_bytes:,}: "
            f"raise cache_bytes (one sequence of max_model_len {max_model_len} takes {per_sequence * block_bytes:,})"
        )
    return int(blocks)


def allocate(
    specs: Sequence[Spec],
    backend: AttentionBackend,
    *,
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    num_slots: int = 0,
) -> list[Cache]:
    """One cache a call site, with whatever the memory holds: untouched memory costs nothing until a sequence uses it.
    Blocks are cleared when they are handed out, where the backend reads them whole; a state starts afresh with its
    sequence."""

    def make(spec: Spec) -> Cache:
        if isinstance(spec, StateSpec):
            return StateCache.allocate(spec, num_slots=num_slots, dtype=dtype, device=device)
        shape = backend.cache_shape(spec, num_blocks, block_size)
        return KvCache(
            k=torch.empty(shape, dtype=dtype, device=device), v=torch.empty(shape, dtype=dtype, device=device)
        )

    return [make(spec) for spec in specs]


def pages_of(caches: Sequence[Cache]) -> list[torch.Tensor]:
    """The keys and the values of every call site of attention: tensors whose first dimension is the block."""
    return [pages for cache in caches if isinstance(cache, KvCache) for pages in (cache.k, cache.v)]


def copy_states(caches: Sequence[Cache], moves: Sequence[tuple[int, int]], device: torch.device) -> None:
    """Copies states of every call site, from rows to other rows, all at once."""
    if moves:
        sources, targets = torch.tensor(moves, device=device).T
        for cache in caches:
            if isinstance(cache, StateCache):
                cache.copy_rows(sources, targets)


def default_bytes(device: torch.device, gpu_memory_fraction: float | None, *, num_sharing: int = 1) -> int:
    """How much memory the cache may take when nobody said; on the CPU, `num_sharing` shards share the machine's."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        fraction = DEFAULT_GPU_FRACTION if gpu_memory_fraction is None else gpu_memory_fraction
        return max(0, int(free - (1.0 - fraction) * total))
    return min(int(DEFAULT_CPU_FRACTION * free_memory()) // num_sharing, MAX_DEFAULT_CPU_BYTES)
