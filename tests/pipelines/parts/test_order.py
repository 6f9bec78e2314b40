"""Orders of parts, held against all permutations of them."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.parts.order import PartSample, best_order, shared_in


def computed(values: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]], order: Sequence[int]) -> int:
    """The characters of different beginnings, counted as a tree of them has them."""
    nodes: dict[tuple[int, ...], int] = {}
    for row in range(len(values[0])):
        beginning: tuple[int, ...] = ()
        for part in order:
            beginning = (*beginning, values[part][row])
            nodes[beginning] = lengths[part][row]
    return sum(nodes.values())


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    num_parts, num_rows = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    numbers = st.lists(st.integers(0, draw(st.integers(0, 6))), min_size=num_rows, max_size=num_rows)
    values = [draw(numbers) for _ in range(num_parts)]
    long = [[draw(st.integers(0, 9)) for _ in range(7)] for _ in values]
    return values, [[long[part][value] for value in row] for part, row in enumerate(values)]


@given(samples())
@settings(max_examples=300, deadline=None)
def test_the_order_is_the_first_of_the_cheapest_permutations(drawn: tuple[list[list[int]], list[list[int]]]) -> None:
    values, lengths = drawn
    sample = PartSample.of(values, lengths)
    costs = {
        order: computed(values, lengths, order) for order in itertools.permutations(range(len(values)))
    }  # in the order of the parts' numbers
    best = min(costs, key=lambda order: costs[order])
    assert best_order(sample) == best
    total = sum(map(sum, lengths))
    for order, cost in costs.items():
        assert shared_in(sample, order) == pytest.approx(1 - cost / total if total else 0)


def test_columns_with_few_values_come_first() -> None:
    rng = np.random.default_rng(0)
    values = [rng.integers(0, number, 400).tolist() for number in (400, 20, 3)]
    sample = PartSample.of(values, [[40] * 400] * 3)
    assert best_order(sample) == (2, 1, 0)
    assert shared_in(sample, (2, 1, 0)) > 0.6 > 0.3 > shared_in(sample, (0, 1, 2))


def test_a_short_column_of_few_values_stands_behind_a_long_one_of_some_more() -> None:
    """8 rows: 2 flags of 1 character, 4 documents of 100. Flag first: 2 + 8 * 100; document first: 4 * 100 + 8."""
    flags, documents = [0, 1] * 4, [0, 0, 1, 1, 2, 2, 3, 3]
    sample = PartSample.of([flags, documents], [[1] * 8, [100] * 8])
    assert best_order(sample) == (1, 0)
    assert shared_in(sample, (1, 0)) == pytest.approx(1 - 408 / 808)


def test_parts_that_follow_from_one_another_cost_nothing_behind_it() -> None:
    """A shop has one city: behind its shop a city is as shared as that."""
    shops = [0, 1, 2, 0, 1, 2]
    sample = PartSample.of([shops, [shop // 2 for shop in shops], [*range(6)]], [[5] * 6, [5] * 6, [50] * 6])
    assert best_order(sample) == (1, 0, 2)


def test_the_given_order_stays_where_no_other_is_better() -> None:
    same = PartSample.of([[7] * 5] * 4, [[3] * 5] * 4)
    assert best_order(same) == (0, 1, 2, 3)
    different = PartSample.of([[*range(5)]] * 4, [[3] * 5] * 4)
    assert best_order(different) == (0, 1, 2, 3)
    empty = PartSample.of([[1, 2], [3, 3]], [[0, 0], [0, 0]])
    assert best_order(empty) == (0, 1)
    assert shared_in(empty, (0, 1)) == 0.0


def test_twelve_parts_are_a_matter_of_thousands_of_sets() -> None:
    rng = np.random.default_rng(1)
    values = [rng.integers(0, 2 + 3 * part, 512).tolist() for part in range(11, -1, -1)]
    order = best_order(PartSample.of(values, [[10] * 512] * 12))
    assert sorted(order) == [*range(12)]
    assert order[0] == 11
