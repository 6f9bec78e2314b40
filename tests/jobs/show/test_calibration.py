"""A calibration as text: bounds that a spec can hold, read back as YAML reads them."""

import re

import pytest
import yaml

from jobs.show.calibration import calibration_text
from pipelines.cascade.bounds import Search, Tried
from pipelines.cascade.calibrate import Calibration, StepFound, Wanted
from pipelines.cascade.sample import LabelledRows, Truths


def calibration(*searches: Search | None) -> Calibration:
    steps = tuple(
        StepFound(
            name=f"m{number}",
            num_asked=100,
            num_answered=90,
            num_kept=60,
            num_right=57,
            prompt_tokens=1234,
            search=search,
        )
        for number, search in enumerate(searches)
    )
    items = {(0, number): frozenset({(None, "a")}) for number in range(100)}
    return Calibration(
        wanted=Wanted(accuracy=0.95, confidence=0.9),
        rows=LabelledRows(places=(), values=dict.fromkeys([*items, (1, 0)]), num_unreadable=2),
        truths=Truths(items=items, num_unknown=1, num_unusable=0, unusable=""),
        steps=steps,
        is_complete=searches[-1] is None,
    )


def found(bound: float) -> Search:
    return Search(num_rows=75, passed=Tried(bound=bound, num_kept=50, num_right=50, least=0.955), failed=None)


@pytest.mark.parametrize("bound", [0.9, 0.123457, 0.00001, 1.0])
def test_a_bound_is_a_number_for_yaml(bound: float) -> None:
    text = calibration_text(calibration(found(bound), None), "team")
    shown = re.search(r"cascade\[0\]\.until\.score: (\S+)", text)
    assert shown is not None
    value = yaml.safe_load(shown[1])
    assert isinstance(value, float | int)
    assert value == bound


def test_what_was_found_is_told_with_how_it_is_known() -> None:
    text = calibration_text(calibration(found(0.9), None), "team")
    assert text.splitlines()[:2] == ["101 rows drawn, 100 with a truth in team", "  2 more could not be read"]
    assert "  kept      60 (60%), 95% of them right" in text
    assert "  proven    50 of 50 right, 100%; at least 95.5%, on 75 rows that had no say in what was tried" in text
    assert "with all bounds of the cascade together 90% sure" in text
    assert "cascade[1], m1: answers what is left" in text
    assert "the whole cascade: 95% right" in text


def test_what_was_not_found_is_told_with_what_would_help() -> None:
    failed = Tried(bound=0.99, num_kept=40, num_right=40, least=0.928)
    text = calibration_text(calibration(Search(num_rows=75, passed=None, failed=failed)), "team")
    assert "cascade[0], m0: no bound is proven to keep answers of which 95% are right" in text
    assert "not any more from 0.99 on: 40 of 40 right, 100%; at least 92.8%" in text
    assert "more rows with a truth (--rows)" in text
    assert "too few to try anything" not in text
    nothing = calibration_text(calibration(Search(num_rows=3, passed=None, failed=None)), "team")
    assert "3 rows are too few to try anything" in nothing
