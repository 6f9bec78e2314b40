"""Whether a library's function computes on this machine what plain torch computes.

Libraries choose their code by the processor they meet, and some of it is wrong for some shapes. So a function of theirs
is used only after it agreed with plain torch here, on samples (see `samples`). Where it does not agree plain torch
computes, and one log line per process says so.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""The largest difference from plain torch, as a share of the largest number: a few roundings of the dtype. What is wrong
in kind is off by tenths."""

Function = TypeVar("Function", bound=Callable[..., Any])
Sample = tuple[Any, ...]
"""The arguments of one call."""
Read = Callable[..., torch.Tensor]
"""read(result, *sample): the tensor that is compared."""

_said: set[tuple[str, torch.dtype]] = set()


def chosen(
    name: str,
    dtype: torch.dtype,
    *,
    library: Function,
    plain: Function,
    samples: Iterable[Sample],
    read: Read | None = None,
) -> Function:
    """The library's function where it agrees with the plain one (see `agrees`), else the plain one."""
    return library if agrees(name, dtype, library=library, plain=plain, samples=samples, read=read) else plain


def agrees(
    name: str,
    dtype: torch.dtype,
    *,
    library: Callable[..., Any],
    plain: Callable[..., Any],
    samples: Iterable[Sample],
    read: Read | None = None,
) -> bool:
    """Whether both give the same for all samples, up to the rounding of `dtype`: what they give itself, or what `read`
    makes of it. If not, says so once per process, with `name`."""
    for sample in samples:
        expected = plain(*sample)
        try:
            found = library(*sample)
        except (RuntimeError, ValueError) as error:
            return _disagree(name, dtype, f"fails on this machine ({error})")
        error_share = _error(*(result if read is None else read(result, *sample) for result in (found, expected)))
        if not error_share <= TOLERANCE[dtype]:  # NaN is no agreement
            return _disagree(name, dtype, f"is off by {error_share:.2g} of the largest number on this machine")
    return True


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    if found.shape != expected.shape:
        return torch.inf
    exact = expected.double()
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-9))


def _disagree(name: str, dtype: torch.dtype, how: str) -> bool:
    if (name, dtype) not in _said:
        _said.add((name, dtype))
        logger.warning("%s in %s %s: plain torch computes in its place", name, str(dtype).removeprefix("torch."), how)
    return False
