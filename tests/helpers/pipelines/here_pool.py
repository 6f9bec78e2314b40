"""A stand-in for `IsolatedPool` that works in this process, where tests can put faults into our code."""

from collections.abc import Callable
from typing import Any, TypeVar

from models.isolation import ProcessLimits

Result = TypeVar("Result")


class HerePool:
    def __init__(self, setup: Callable[[], Any], *, limits: ProcessLimits) -> None:
        del limits
        self._context = setup()

    def start(self) -> None: ...

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        return function(self._context, *args)

    def close(self) -> None: ...
