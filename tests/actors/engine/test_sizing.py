"""More replicas while they are full, fewer once they have long been half empty."""

from collections.abc import Sequence

import pytest

from actors.engine.sizing import PATIENCE, Bounds, Sizing

BOUNDS = Bounds(least=1, most=3, calls_each=4)


@pytest.mark.parametrize(
    ("num_calls", "change"),
    [
        ([3], 1),  # three of four
        ([2], 0),
        ([4, 2], 1),  # six of eight
        ([4, 1], 0),
        ([4, 4, 4], 0),  # there are no more than three
        ([4, None], 0),  # one that has not loaded yet may do
        ([None], 0),
        ([], 0),
    ],
)
def test_full_replicas_get_another(num_calls: Sequence[int | None], change: int) -> None:
    assert Sizing(BOUNDS).change(num_calls) == change


@pytest.mark.parametrize("num_calls", [[1, 1], [0, 0, 0], [1, None]])
def test_half_empty_ones_become_fewer_after_a_while_and_again_after_another(num_calls: Sequence[int | None]) -> None:
    sizing = Sizing(BOUNDS)
    for _ in range(2):
        assert [sizing.change(num_calls) for _ in range(PATIENCE)] == [0] * (PATIENCE - 1) + [-1]


def test_a_lull_is_not_a_while() -> None:
    sizing = Sizing(BOUNDS)
    seen = [0, 0] * (PATIENCE - 1) + [2, 2]  # half full
    for calls in (seen * 3)[::2]:
        assert sizing.change([calls, calls]) == 0


def test_there_are_never_fewer_than_the_least() -> None:
    sizing = Sizing(BOUNDS)
    assert {sizing.change([0]) for _ in range(3 * PATIENCE)} == {0}
