"""Matrices of which `make quick` runs one case of each kind, and `make test` all."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest


def first_of_each(cases: Iterable[Any], kind: Callable[[Any], Hashable]) -> list[Any]:
    """The cases, all but the first of each kind marked slow; a case of several arguments is a tuple."""
    found: list[Any] = []
    seen: set[Hashable] = set()
    for case in cases:
        if kind(case) in seen:
            found.append(pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow))
        else:
            found.append(case)
        seen.add(kind(case))
    return found


def first_quick(cases: Iterable[Any]) -> list[Any]:
    """The cases of one axis, all but the first marked slow."""
    return first_of_each(cases, kind=lambda case: "any")
