"""How fast an engine is, where not all of the rows that were to be tried can be."""

from typing import cast

import pytest

from pipelines.driver import unit_size
from pipelines.driver.first_engine import FirstEngine
from pipelines.driver.unit_size import SpeedProbe
from pipelines.graph.read_stage import ReadSettings
from pipelines.rows.rows import Answers
from pipelines.rows.unit import NO_ROW_GROUP, Unit


class TriedEngine:
    """Gives the prepared work that it is told, and answers each batch in half a second until it takes no more."""

    def __init__(self, works: list[bytes | None], *, num_answered: int) -> None:
        self._works, self._num_answered = works, num_answered

    def waited_for(self, reference: object) -> list[bytes | None]:
        del reference
        return self._works

    def answers(self, work: bytes) -> Answers | None:
        del work
        self._num_answered -= 1
        return Answers(results=(), seconds=0.5) if self._num_answered >= 0 else None


class NoTask:
    """Stands for the task that prepares rows, which gives nothing but a reference."""

    def options(self, **options: object) -> "NoTask":
        del options
        return self

    def remote(self, *arguments: object) -> None:
        del arguments


@pytest.mark.parametrize(
    ("works", "num_answered", "rows_per_s"),
    [
        ([b"8", b"32", b"128"], 3, 256.0),
        ([b"8", None, b"128"], 3, 16.0),  # 128 rows would take 8 seconds
        ([b"8", b"32", b"128"], 1, 16.0),  # the engine takes no more
        ([None], 3, None),  # the run starts no new units: one block in the place of all
        ([], 3, None),
    ],
)
def test_the_speed_is_that_of_the_last_batch_that_could_be_tried(
    monkeypatch: pytest.MonkeyPatch, works: list[bytes | None], num_answered: int, rows_per_s: float | None
) -> None:
    monkeypatch.setattr(unit_size, "_prepare", NoTask())
    engine = cast("FirstEngine", TriedEngine(works, num_answered=num_answered))
    probe = SpeedProbe(read=cast("ReadSettings", None), read_cpus=1.0, engine=engine)
    unit = Unit(
        index=0, path="t", relative_path="t", format="jsonl", row_group=NO_ROW_GROUP, offset=0, first_row=0,
        num_rows=1000, num_bytes=1, source_size=1, source_tag="", is_cuttable=True,
    )  # fmt: skip
    assert probe.rows_per_s([unit, unit, unit]) == rows_per_s
