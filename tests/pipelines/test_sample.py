"""A sample of a corpus."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import OverrunsError, SourceError
from pipelines.formats.schema import Columns
from pipelines.job import InputSpec
from pipelines.rows.rows import PreparedUnit, RowFailure, UnitRows
from pipelines.rows.unit import Unit
from pipelines.sample import MAX_OVERRUNS, Sample, UnitPicker, sample_rows
from pipelines.task_base.requests import ModelRequest
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader


class LengthPreparer:
    """A row's `n` is the number of its tokens; a row of 13 fails, and one of 666 goes over the limits."""

    def __init__(self) -> None:
        self.num_overruns = 0

    def prepare(self, rows: UnitRows) -> PreparedUnit:
        lengths: list[int] = np.asarray(rows.rows.as_arrow().table["n"]).tolist()
        self.num_overruns += lengths.count(666)
        if lengths.count(666) > MAX_OVERRUNS:
            raise OverrunsError("this unit is given up")
        is_good = np.array([length not in (13, 666) for length in lengths])
        numbers = rows.row_numbers.tolist()
        bad = [
            RowFailure(row=row, kind="unlucky", message="", input={})
            for row, good in zip(numbers, is_good, strict=True)
            if not good
        ]
        good_lengths = [length for length in lengths if length not in (13, 666)]
        return PreparedUnit(
            unit=rows.unit,
            rows=rows.rows.kept(is_good),
            row_numbers=rows.row_numbers[is_good],
            failures=(*rows.failures, *bad),
            prompt=f"the row with {good_lengths[0]}" if good_lengths else None,
            requests=tuple(
                ModelRequest(row=row, token_ids=np.zeros(length, np.int32)) for row, length in enumerate(good_lengths)
            ),
        )


def units_of(num_units: int) -> list[Unit]:
    return [
        Unit(
            index=index, path="/c.jsonl", relative_path="c.jsonl", format="jsonl", row_group=-1, offset=0, first_row=0, num_rows=1,
            num_bytes=1, source_size=1, source_tag="", is_cuttable=True,
        )
        for index in range(num_units)
    ]  # fmt: skip


def sampled(path: Path, *, num_rows: int, num_units: int = 8) -> Sample:
    spec = InputSpec(paths=(str(path),))
    picker = UnitPicker(num_units=num_units, seed=0)
    plan = plan_units(list_sources(spec), spec, Columns(), unit_rows=50, sink=picker)
    return sample_rows(picker.units, UnitReader(schema=plan.schema), LengthPreparer(), num_rows=num_rows)


def write_corpus(path: Path, lengths: list[int]) -> Path:
    path.write_text("".join(json.dumps({"n": length}) + "\n" for length in lengths))
    return path


def test_picker_draws_from_the_whole_corpus_and_keeps_its_order() -> None:
    picker = UnitPicker(num_units=10, seed=0)
    for start in range(0, 1000, 100):
        picker(units_of(1000)[start : start + 100])
    indices = [unit.index for unit in picker.units]
    assert len(indices) == 10
    assert indices == sorted(indices)
    assert indices[0] < 300
    assert indices[-1] > 700


def test_picker_with_the_same_seed_draws_the_same() -> None:
    pickers = [UnitPicker(num_units=3, seed=5) for _ in range(2)]
    for picker in pickers:
        picker(units_of(50))
    assert pickers[0].units == pickers[1].units


def test_sample_has_about_the_rows_asked_for_and_their_mean(tmp_path: Path) -> None:
    sample = sampled(write_corpus(tmp_path / "c.jsonl", [10, 20] * 500), num_rows=100)
    assert 90 <= sample.num_rows <= 110
    assert sample.mean_prompt_tokens == pytest.approx(15.0, abs=5.1)
    assert sorted(set(sample.prompt_tokens.tolist())) in ([10], [20], [10, 20])


def test_the_first_row_is_in_a_sample_and_shown(tmp_path: Path) -> None:
    sample = sampled(write_corpus(tmp_path / "c.jsonl", [7, *[10, 20] * 500]), num_rows=100, num_units=50)
    assert sample.prompt == "the row with 7"
    assert sample.prompt_tokens.tolist().count(7) == 1
    assert sampled(write_corpus(tmp_path / "d.jsonl", [13, 5]), num_rows=10).prompt == "the row with 5"


def test_small_corpus_is_taken_whole(tmp_path: Path) -> None:
    sample = sampled(write_corpus(tmp_path / "c.jsonl", [1, 2, 13]), num_rows=100)
    assert sample.prompt_tokens.tolist() == [1, 2]
    assert sample.failures == {"unlucky": 1}
    assert sample.mean_prompt_tokens == 1.0


def test_rows_that_cannot_be_read_are_counted_by_kind(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "c.jsonl", [5] * 10)
    path.write_text(path.read_text() + "no json\n")
    sample = sampled(path, num_rows=100)
    assert sample.failures == {"malformed_json": 1}
    assert len(sample.rows) == 10


def test_file_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_corpus(tmp_path / "c.jsonl", [5] * 10)
    spec = InputSpec(paths=(str(path),))
    picker = UnitPicker(num_units=1, seed=0)
    plan = plan_units(list_sources(spec), spec, Columns(), unit_rows=50, sink=picker)
    path.write_text("changed")
    with pytest.raises(SourceError, match="has changed since it was planned"):
        sample_rows(picker.units, UnitReader(schema=plan.schema), LengthPreparer(), num_rows=1)


def test_sampling_ends_with_the_rows_that_go_over_the_limits(tmp_path: Path) -> None:
    """One in each unit of 50: the sample ends with the third, and tells of the rows until then."""
    lengths = [666 if row % 50 == 7 else 5 for row in range(400)]
    sample = sampled(write_corpus(tmp_path / "c.jsonl", lengths), num_rows=400)
    assert sample.failures == {"unlucky": MAX_OVERRUNS}
    assert sample.num_rows == 50 * MAX_OVERRUNS
    assert sample.cut_short == "3 rows went over the limits of preparing one"


def test_sampling_ends_with_a_unit_that_is_given_up(tmp_path: Path) -> None:
    sample = sampled(write_corpus(tmp_path / "c.jsonl", [5] * 50 + [666] * 50 + [5] * 50), num_rows=150)
    assert (sample.num_rows, sample.cut_short) == (50, "this unit is given up")


def test_a_whole_sample_is_not_cut_short(tmp_path: Path) -> None:
    assert sampled(write_corpus(tmp_path / "c.jsonl", [5] * 40), num_rows=40).cut_short is None
