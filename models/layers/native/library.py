"""The compiled kernels as functions of tensors. What they are given lies on the CPU, in float32 or bfloat16."""

import ctypes
import functools
import logging
from dataclasses import dataclass
from typing import Any, Final

import torch

from models.layers.native.build import BuildError, built_library

logger = logging.getLogger(__name__)

NAMES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
LONGEST_HEAD: Final = 512
MOST_SHARING: Final = 48

_POINTER, _LONG, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_SIGNATURES: Final[dict[str, list[Any]]] = {
    "pack_{}": [_POINTER] * 2 + [_LONG] * 2,
    "product_{}": [_POINTER] * 4 + [_LONG] * 3,
    "norm_{}": [_POINTER] * 3 + [_LONG] * 5 + [_FLOAT, _INT],
    "gated_{}": [_POINTER] * 2 + [_LONG] * 2,
    "attention_{}": [_POINTER] * 6 + [_LONG] + [_POINTER] * 3 + [_LONG] * 9 + [_FLOAT],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Packed sequences: the tokens of each [S] in this step, those that it has in the cache already [S] (int64), and how many keys a
    query sees, its own included (0: all)."""

    counts: torch.Tensor
    starts: torch.Tensor
    window: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pages:
    """A cache: for each block and key head `block_size` keys as [D, B] and values as [B, D], one behind the other; and the blocks of
    each sequence in `tables` [S, W] (int64)."""

    k: torch.Tensor
    v: torch.Tensor
    tables: torch.Tensor
    block_size: int


class PackedWeight:
    """A weight [out, in] as products read it, and its bias."""

    def __init__(self, library: "NativeLibrary", weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._library, self._dtype = library, weight.dtype
        self.num_columns, self.length = weight.shape
        words = self.length if weight.dtype == torch.float32 else (self.length + 1) // 2
        panels = -(-self.num_columns // library.tile_columns)
        self._packed = torch.empty(panels * words * library.tile_columns, dtype=torch.float32)
        self._bias = None if bias is None else bias.float()
        library.call("pack_{}", weight.dtype, weight.contiguous(), self._packed, self.num_columns, self.length)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """X [T, in] -> x Wᵀ + b [T, out] in its dtype."""
        return self._product("product_{}", x, self._dtype)

    def in_float32(self, x: torch.Tensor) -> torch.Tensor:
        """The same in float32, not rounded to the dtype."""
        name = "product_{}" if self._dtype == torch.float32 else "product_{}_to_float32"
        return self._product(name, x, torch.float32)

    def _product(self, name: str, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        y = torch.empty(x.shape[0], self.num_columns, dtype=dtype)
        if x.shape[0]:
            self._library.call(
                name,
                self._dtype,
                x.contiguous(),
                self._packed,
                self._bias,
                y,
                x.shape[0],
                self.num_columns,
                self.length,
            )
        return y


class NativeLibrary:
    """The functions of one shared library."""

    def __init__(self, path: str) -> None:
        self._functions = library = ctypes.CDLL(path)
        self.tile_columns: int = library.millrace_tile_columns()
        self.dtypes = frozenset(NAMES if library.millrace_has_bfloat16() else (torch.float32,))
        names = {name: signature for name, signature in _SIGNATURES.items() if not name.startswith(("pack", "product"))}
        for dtype in NAMES:
            for name, signature in (_SIGNATURES if dtype in self.dtypes else names).items():
                self._declare(name.format(NAMES[dtype]), signature)
        if torch.bfloat16 in self.dtypes:
            self._declare("product_bfloat16_to_float32", _SIGNATURES["product_{}"])

    def _declare(self, name: str, signature: list[Any]) -> None:
        function = getattr(self._functions, f"millrace_{name}")
        function.argtypes, function.restype = signature, None

    def call(self, name: str, dtype: torch.dtype, *arguments: torch.Tensor | int | float | None) -> None:
        """Calls the function of this name for `dtype`; tensors are given as the places of their first numbers."""
        torch.get_num_threads()  # has OpenMP know, in a thread that is new to torch, how many there are to be
        given = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in arguments]
        getattr(self._functions, f"millrace_{name.format(NAMES[dtype])}")(*given)

    def norm(self, x: torch.Tensor, weights: torch.Tensor, eps: float, *, rounds_last: bool = False) -> torch.Tensor:
        """X [T, H] by one weight [H], or [T, heads, D], whose heads lie side by side, by one for each head [heads, D]: each
        row divided by the root of its mean square."""
        y = torch.empty(x.shape, dtype=x.dtype)
        if x.stride()[1:] != y.stride()[1:]:
            x = x.contiguous()
        size, per_token = x.shape[-1], x.shape[1] if x.dim() == 3 else 1
        num_weights = weights.numel() // size
        self.call(
            "norm_{}",
            x.dtype,
            x,
            weights,
            y,
            x.shape[0] * per_token,
            per_token,
            num_weights,
            x.stride(0),
            size,
            eps,
            rounds_last,
        )
        return y

    def gated(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[T, 2 I] -> silu(gate) * up [T, I], where a row is gate and up side by side."""
        num_rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        y = torch.empty(num_rows, size, dtype=gate_up.dtype)
        self.call("gated_{}", gate_up.dtype, gate_up.contiguous(), y, num_rows, size)
        return y

    def attention(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        pages: Pages | None,
        steps: Steps,
        scale: float,
    ) -> torch.Tensor:
        """Causal attention, q [T, Q, D], k and v [T, K, D] -> [T, Q, D]; writes k and v to the pages first."""
        num_heads, head_dim = q.shape[1:]
        out = torch.empty(q.shape, dtype=q.dtype)
        q, k, v = (x if x.stride()[1:] == (head_dim, 1) else x.contiguous() for x in (q, k, v))
        tables, width = (None, 0) if pages is None else (pages.tables, pages.tables.shape[1])
        stored, size = ((None, None), 1) if pages is None else ((pages.k, pages.v), pages.block_size)
        self.call(
            "attention_{}", q.dtype, q, k, v, *stored, out, steps.counts.shape[0], steps.counts, steps.starts, tables, width,
            num_heads, k.shape[1], head_dim, size, steps.window, q.stride(0), k.stride(0), v.stride(0), scale,
        )  # fmt: skip
        return out


@functools.cache
def native_library() -> NativeLibrary | None:
    """The library for this machine, None if it cannot be had."""
    try:
        return NativeLibrary(str(built_library()))
    except (BuildError, OSError) as error:
        logger.warning("kernels are torch's, not compiled ones: %s", error)
        return None
