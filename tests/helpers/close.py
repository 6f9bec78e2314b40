"""JSON values that are equal but for the last digits of their numbers."""

from typing import Any

import pytest


def close_to(value: Any) -> Any:
    """The same, equal to whatever differs from it by no more than 1e-5 in a number that is no integer."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-5)
    if isinstance(value, dict):
        return {name: close_to(item) for name, item in value.items()}
    return [close_to(item) for item in value] if isinstance(value, list) else value
