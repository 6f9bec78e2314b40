"""Networks, loading and the engine: everything that computes, in one process, without a cluster.

The public names are loaded when they are first used, so that importing a part of this package that needs no torch
does not import torch.
"""

from typing import TYPE_CHECKING, Any

from models.engine.scheduling.request import Output, SamplingParams
from models.errors import ModelError

if TYPE_CHECKING:
    from models.engine.engine import Engine
    from models.engine.scoring.scorer import Scorer
    from models.engine.stream import AsyncEngine

__all__ = ["AsyncEngine", "Engine", "ModelError", "Output", "SamplingParams", "Scorer"]

_LAZY = {
    "Engine": "models.engine.engine",
    "AsyncEngine": "models.engine.stream",
    "Scorer": "models.engine.scoring.scorer",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
