"""Conditions on dead letters: what they may say, and of which letters they are true."""

import pickle
from typing import Any

import pytest

from pipelines.errors import SelectionError
from pipelines.retry.condition import Condition

LETTER: dict[str, Any] = {
    "unit": 3,
    "path": "/in/b.jsonl",
    "row": 70,
    "kind": "too_long",
    "message": "the prompt has 900 tokens",
    "attempts": 2,
    "input": {"id": 70, "tenant": "acme", "tags": ["a", "b"], "null": None},
}


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ('kind == "too_long"', True),
        ('kind != "too_long"', False),
        ('kind in ["null_value", "too_long"] and attempts < 3', True),
        ("row >= 70 and row < 71 and unit == 3", True),
        ('path.endswith("b.jsonl")', True),
        ('"900 tokens" in message', True),
        ('input.tenant == "acme" and "b" in input.tags', True),
        ('input["tenant"] == "other"', False),
        ("input.null is none", True),
        ("input.absent == 1", False),
        ("input.absent.deeper is defined", False),
        ("tasks is none and answer is none", True),
        ("not attempts % 2", True),
    ],
)
def test_a_condition_is_told_of_a_letter(text: str, is_true: bool) -> None:
    assert Condition(text).holds(LETTER) == is_true
    assert pickle.loads(pickle.dumps(Condition(text))).holds(LETTER) == is_true


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('kindd == "too_long"', "names kindd; a dead letter has unit, path, row, kind"),
        ("", "is no expression"),
        ('kind = "too_long"', "is no expression"),
        ('kind == "too_long', "is no expression"),
        ("true) %}{% endif %}{% if (true", "is no expression"),
        ("1 %}", "is no expression"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SelectionError, match=problem):
        Condition(text)


@pytest.mark.parametrize(
    "text",
    [
        "row < kind",
        "input.absent < 3",
        "().__class__.__bases__[0].__subclasses__()",
        "range(10**9) | list",
        "'x' * 10**9 == kind",
    ],
)
def test_a_condition_that_cannot_be_told_says_of_which_letter(text: str) -> None:
    """Among them what a template may not do or cost."""
    with pytest.raises(SelectionError, match=r"cannot be told of row 70 of /in/b\.jsonl"):
        Condition(text).holds(LETTER)
