"""Lists of token ids, compared."""

from collections.abc import Sequence


def common_prefix(lists: Sequence[Sequence[int]]) -> list[int]:
    """What all of them begin with."""
    found: list[int] = []
    for together in zip(*lists, strict=False):
        if len(set(together)) > 1:
            break
        found.append(together[0])
    return found
