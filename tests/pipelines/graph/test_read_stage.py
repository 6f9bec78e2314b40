"""How units are shared out among read tasks."""

import pytest

from pipelines.graph.read_stage import MAX_TASKS, UNITS_PER_TASK, task_units, units_per_task
from pipelines.rows.unit import NO_ROW_GROUP, Unit


def unit(index: int, *, path: str = "/in/a.jsonl", is_cuttable: bool = True) -> Unit:
    return Unit(
        index=index,
        path=path,
        relative_path=path,
        format="jsonl",
        row_group=NO_ROW_GROUP,
        offset=index,
        first_row=index,
        num_rows=1,
        num_bytes=1,
        source_size=1,
        source_tag="",
        is_cuttable=is_cuttable,
    )


@pytest.mark.parametrize(("num_units", "expected"), [(0, 1), (1, 1), (10, 1), (16, 2), (100, UNITS_PER_TASK)])
def test_a_small_corpus_is_read_by_several_tasks(num_units: int, expected: int) -> None:
    assert units_per_task(num_units) == expected


def test_a_large_corpus_has_a_bounded_number_of_tasks() -> None:
    assert 1_000_000 / units_per_task(1_000_000) <= MAX_TASKS


def test_tasks_take_units_in_order() -> None:
    tasks = list(task_units(map(unit, range(10)), 4))
    assert [[one.index for one in task] for task in tasks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_what_is_read_in_one_pass_stays_in_one_task() -> None:
    compressed = [unit(index, path="/in/b.jsonl.gz", is_cuttable=False) for index in range(1, 8)]
    tasks = list(task_units([unit(0), *compressed, unit(8)], 4))
    assert [[one.index for one in task] for task in tasks] == [[0], [1, 2, 3, 4, 5, 6, 7], [8]]
