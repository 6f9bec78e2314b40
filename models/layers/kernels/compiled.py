"""Which compiled kernels are used: as with a library's, those that compute on this machine what plain torch computes."""

import functools
from functools import partial

import torch
import torch.nn.functional as F

from models.layers.kernels import plain, samples
from models.layers.kernels.agreement import agrees
from models.layers.native.library import NAMES, NativeLibrary, PackedWeight, Pages, Steps, native_library

CPU = torch.device("cpu")
BLOCK_SIZE = 32


def native_for(x: torch.Tensor) -> NativeLibrary | None:
    """The kernels that take this tensor; None where torch computes."""
    return native_kernels(x.dtype) if x.device.type == "cpu" else None


@functools.cache
def native_kernels(dtype: torch.dtype) -> NativeLibrary | None:
    """The kernels for a dtype on a CPU, all of them or none; asked once per process."""
    library = native_library() if dtype in NAMES else None
    if library is None or dtype not in library.dtypes:
        return None
    is_right = (
        agrees(
            "the compiled product",
            dtype,
            library=lambda x, weight, bias: PackedWeight(library, weight, bias)(x),
            plain=F.linear,
            samples=samples.linear(dtype, CPU),
        )
        and agrees(
            "the compiled norm",
            dtype,
            library=lambda x, weight, _: library.norm(x, weight[0], 1e-6),
            plain=lambda x, weight, _: F.rms_norm(x, x.shape[-1:], None, 1e-6) * weight[0],
            samples=samples.linear(dtype, CPU),
        )
        and agrees(
            "the compiled silu",
            dtype,
            library=lambda x, *_: library.gated(x[:, : x.shape[1] // 2 * 2]),
            plain=lambda x, *_: F.silu(x[:, : x.shape[1] // 2]) * x[:, x.shape[1] // 2 : x.shape[1] // 2 * 2],
            samples=samples.linear(dtype, CPU),
        )
        and agrees(
            "the compiled attention",
            dtype,
            library=partial(_through_cache, library),
            plain=plain.varlen_attention,
            samples=samples.varlen(dtype, CPU, slides=True),
        )
    )
    return library if is_right else None


def _through_cache(
    library: NativeLibrary,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_queries: torch.Tensor,
    cu_keys: torch.Tensor,
    max_queries: int,
    max_keys: int,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Packed sequences, of which all keys but those of the queries were computed a step before; see `plain.varlen_attention`."""
    del max_queries
    counts, ends = (boundaries.long().diff() for boundaries in (cu_queries, cu_keys))
    width, window = -(-max_keys // BLOCK_SIZE), window_size[0] + 1
    tables = torch.arange(ends.numel() * width).view(-1, width).flip(1)
    shape = (tables.numel(), k.shape[1], BLOCK_SIZE * k.shape[2])
    pages = partial(
        Pages, k=torch.empty(shape, dtype=k.dtype), v=torch.empty(shape, dtype=v.dtype), block_size=BLOCK_SIZE
    )
    place = torch.cat([torch.arange(int(end)) for end in ends])
    is_new = place >= torch.repeat_interleave(ends - counts, ends)
    old = (ends > counts).nonzero()[:, 0]
    before = q.new_zeros(int((~is_new).sum()), *q.shape[1:])
    steps = Steps(counts=(ends - counts)[old], starts=torch.zeros_like(old), window=window)
    library.attention(before, k[~is_new], v[~is_new], pages(tables=tables[old]), steps, scale)
    steps = Steps(counts=counts, starts=ends - counts, window=window)
    return library.attention(q, k[is_new], v[is_new], pages(tables=tables.contiguous()), steps, scale)
