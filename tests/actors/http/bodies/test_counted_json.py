"""JSON is counted before it is parsed: exactly, and whatever stands in its texts."""

import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.http.bodies.counted_json import parsed
from actors.http.errors import ApiError
from actors.http.limits import RequestLimits

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(alphabet='"\\[]{},:', max_size=12)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def num_parts(value: Any) -> int:
    """Texts, lists and objects."""
    match value:
        case str():
            return 1
        case list():
            return 1 + sum(map(num_parts, value))
        case dict():
            return 1 + len(value) + sum(map(num_parts, value.values()))
    return 0


def num_values(value: Any) -> int:
    """Elements and members: as many as there are commas, and one."""
    match value:
        case list() | dict():
            inner = value if isinstance(value, list) else value.values()
            return max(0, len(value) - 1) + sum(num_values(each) - 1 for each in inner) + 1
    return 1


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(VALUES, st.booleans())
@example(["\\", '"', '\\"', "\\\\[", "a\\\\"], False)
def test_what_is_within_the_limits_is_what_json_makes_of_it_and_one_more_is_refused(value: Any, is_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode()
    parts, values = num_parts(value), num_values(value)
    assert parsed(body, RequestLimits(max_parts=parts, max_values=values)) == json.loads(body)
    for less in (
        RequestLimits(max_parts=parts - 1, max_values=values),
        RequestLimits(max_parts=parts, max_values=values - 1),
    ):
        if min(less.max_parts, less.max_values) >= 0:
            with pytest.raises(ApiError, match="at most"):
                parsed(body, less)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'"\xff"',
        b'"\xed\xa0\x80"',
        rb'"\ud800"',
        b'"a\nb"',
        b"{} {}",
        "﻿{}".encode(),
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda body: body[:16],
)
def test_what_is_no_json_is_refused_with_its_place(body: bytes) -> None:
    with pytest.raises(RequestValidationError) as raised:
        parsed(body, RequestLimits())
    (error,) = raised.value.errors()
    assert error["type"] == "json_invalid"
    assert 0 <= error["loc"][1] <= len(body)


def test_a_body_of_every_token_that_a_request_may_have_is_within_the_limits() -> None:
    limits = RequestLimits()
    body = b'{"prompt": [' + b",".join([b"12345"] * limits.max_request_tokens) + b"]}"
    assert len(body) < limits.max_body_bytes
    assert len(parsed(body, limits)["prompt"]) == limits.max_request_tokens
    inputs = [["x"] * (limits.max_inputs - 1), "[{,}]" * (limits.max_body_bytes // 8)]
    assert parsed(json.dumps(inputs).encode(), limits) == inputs
