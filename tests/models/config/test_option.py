"""Options as they are declared: what each may be, in words, and what is refused."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from models.config.option import Option, check_options, declared
from models.errors import ConfigError, OptionError


@dataclass(frozen=True, kw_only=True)
class Oven:
    depth: Annotated[int, Option("racks", least=1)] = 2
    rows: Annotated[int | None, Option("rolls in a row", unit="tokens", least=1, most=4096, unset="by width")] = None
    heat: Annotated[float, Option("part of the heat", above=0, most=1)] = 0.5
    wait: Annotated[float | None, Option("until it is hot", unit="seconds", above=0)] = None
    side: Annotated[Literal["top", "bottom"], Option("which side is hot")] = "top"
    name: str = "not declared"


@dataclass(frozen=True, kw_only=True)
class Bakery(Oven):
    ovens: Annotated[int, Option("ovens", least=1)] = 1


@pytest.mark.parametrize(
    ("name", "default", "allowed"),
    [
        ("depth", 2, "a whole number, at least 1"),
        ("rows", None, "a whole number of tokens from 1 to 4,096"),
        ("heat", 0.5, "a number over 0 and at most 1"),
        ("wait", None, "a number of seconds over 0"),
        ("side", "top", "one of top, bottom"),
    ],
)
def test_a_declaration_says_what_an_option_may_be(name: str, default: Any, allowed: str) -> None:
    found = declared(Oven)[name]
    assert (found.default, found.allowed) == (default, allowed)


def test_options_are_inherited_in_their_order() -> None:
    assert list(declared(Bakery)) == ["depth", "rows", "heat", "wait", "side", "ovens"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"depth": 10**400, "rows": np.int64(4)},
        {"depth": 1, "rows": 4096, "heat": 1, "wait": 1e-9, "side": "bottom"},
        {"rows": 1, "wait": None},
    ],
)
def test_what_is_allowed_is_taken(values: dict[str, Any]) -> None:
    check_options(Oven(**values))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"depth": 0}, "was 0; it must be at least 1"),
        ({"depth": None}, "was None; it must be a whole number, at least 1"),
        ({"depth": "2"}, "was '2'; it must be a whole number, at least 1"),
        ({"depth": 2.0}, "was 2.0; it must be a whole number, at least 1"),
        ({"depth": True}, "was True; it must be a whole number, at least 1"),
        ({"rows": 4097}, "was 4097; it must be from 1 to 4,096"),
        ({"heat": 0.0}, "was 0.0; it must be over 0 and at most 1"),
        ({"heat": 1.5}, "was 1.5; it must be over 0 and at most 1"),
        ({"wait": -1}, "was -1; it must be over 0"),
        ({"wait": math.inf}, "was inf; it must be a number of seconds over 0, and finite"),
        ({"wait": np.float32(math.inf)}, "was inf; it must be a number of seconds over 0, and finite"),
        ({"rows": 10**400}, f"was {10**400}; it must be from 1 to 4,096"),
        ({"wait": math.nan}, "was nan; it must be a number of seconds over 0, and finite"),
        ({"side": "left"}, "was 'left'; it must be one of top, bottom"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options(Oven(**values), "oven option")
    assert isinstance(caught.value, OptionError)
    assert (caught.value.option, caught.value.problem) == (*values, problem)
    assert str(caught.value) == f"oven option {caught.value.option} {problem}"
