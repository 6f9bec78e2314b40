"""The tensors behind the block pool: paged keys and values for every call site, sized from a number of bytes.

On a GPU the default is what `gpu_memory_fraction` of the device leaves after the weights; on the CPU a fixed part of
the memory that is free. Memory is reserved lazily there: pages that no sequence ever used cost nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from models.errors import ConfigError
from models.layers.attention import AttentionBackend, KvCache, KvSpec

DEFAULT_GPU_FRACTION = 0.9
DEFAULT_CPU_FRACTION = 0.25
MAX_DEFAULT_CPU_BYTES = 4 * 2**30


def num_blocks_for(
    specs: Sequence[KvSpec],
    *,
    cache_bytes: int,
    block_size: int,
    dtype: torch.dtype,
    max_num_seqs: int,
    max_model_len: int,
) -> int:
    """How many blocks `cache_bytes` hold, over all call sites; never more than every sequence at full length could
    use.

    Raises:
        ConfigError: not one block fits. A request that needs more than all blocks is refused when it comes.
    """
    block_bytes = block_size * sum(spec.bytes_per_token(dtype) for spec in specs)
    per_sequence = -(-max_model_len // block_size)
    blocks = min(cache_bytes // block_bytes, max_num_seqs * per_sequence)
    if blocks < 1:
        raise ConfigError(
            f"a cache of {cache_bytes:,} bytes holds no block of {block_size} tokens, which takes {block_bytes:,}: "
            f"raise cache_bytes (one sequence of max_model_len {max_model_len} takes {per_sequence * block_bytes:,})"
        )
    return int(blocks)


def allocate(
    specs: Sequence[KvSpec],
    backend: AttentionBackend,
    *,
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> list[KvCache]:
    """One cache a call site, with whatever the memory holds: untouched memory costs nothing until a sequence uses it.
    Blocks are cleared when they are handed out, where the backend reads them whole."""
    shapes = [backend.cache_shape(spec, num_blocks, block_size) for spec in specs]
    return [
        KvCache(k=torch.empty(shape, dtype=dtype, device=device), v=torch.empty(shape, dtype=dtype, device=device))
        for shape in shapes
    ]


def default_bytes(device: torch.device, gpu_memory_fraction: float | None) -> int:
    """How much memory the cache may take when nobody said."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        fraction = DEFAULT_GPU_FRACTION if gpu_memory_fraction is None else gpu_memory_fraction
        return max(0, int(free - (1.0 - fraction) * total))
    return min(int(DEFAULT_CPU_FRACTION * free_memory()), MAX_DEFAULT_CPU_BYTES)


def free_memory() -> int:
    """Bytes of memory this machine could still give out, as /proc/meminfo says."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ConfigError("/proc/meminfo does not say how much memory is free; set cache_bytes")
