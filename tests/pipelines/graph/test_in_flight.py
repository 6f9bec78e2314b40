"""Rows that are computed and not committed yet, as engines tell of them."""

from actors.engine.load import CallLoad, EngineLoad
from pipelines.graph.in_flight import RowsInFlight
from pipelines.rows.unit import work_name


def load(process: str, **answered: int) -> EngineLoad:
    """Units `u3=5`: five of the ten requests of unit 3 are answered."""
    calls = [
        CallLoad(name=work_name(int(unit.removeprefix("u"))), num_requests=10, num_answered=count)
        for unit, count in answered.items()
    ]
    return EngineLoad(process=process, calls=tuple(calls))


def test_rows_of_all_engines_count_until_their_units_are_committed() -> None:
    committed: set[int] = set()
    rows = RowsInFlight(10, committed.__contains__)
    assert rows.num_rows == 0
    rows.look([load("a", u0=3, u1=1), load("b", u2=4)])
    assert rows.num_rows == 8
    rows.look([load("a", u0=10, u1=2), load("b", u2=4)])
    rows.look([load("a", u1=2), load("b", u2=4)])  # the answers of unit 0 are on their way
    assert rows.num_rows == 16
    committed.add(0)
    assert rows.num_rows == 6
    rows.look([load("a", u0=10, u1=2), load("b", u2=4)])  # asked before it was committed
    assert rows.num_rows == 6


def test_an_engine_that_dies_takes_its_part_back_and_the_next_process_begins_again() -> None:
    rows = RowsInFlight(10, lambda unit: False)
    rows.look([load("a", u0=7), load("b", u1=2)])
    rows.look([load("b", u1=3)])
    assert rows.num_rows == 3
    rows.look([load("a again", u0=1), load("b", u1=3)])
    assert rows.num_rows == 4


def test_a_unit_that_two_engines_have_counts_once() -> None:
    rows = RowsInFlight(10, lambda unit: False)
    rows.look([load("a", u0=7), load("b", u0=2)])
    assert rows.num_rows == 7


def test_rows_with_several_requests_count_as_rows_and_other_work_not_at_all() -> None:
    rows = RowsInFlight(4, lambda unit: False)
    other = CallLoad(name="trial", num_requests=10, num_answered=9)
    rows.look([load("a", u0=5), EngineLoad(process="b", calls=(other,))])
    assert rows.num_rows == 2
