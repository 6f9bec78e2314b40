"""Arrow values as JSON."""

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.formats.json_values import dump_json, json_rows


def text(array: "pa.Array[Any]") -> str:
    return b",".join(dump_json(row["x"]) for row in json_rows(pa.table({"x": array}))).decode()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None, 2**63 - 1]), "1,null,9223372036854775807"),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        (pa.array([1.5, math.nan, math.inf, None]), "1.5,null,null,null"),
        (pa.array([Decimal("12345678901234567890.10"), None]), "12345678901234567890.10,null"),
        (pa.array(["grüße\n\x00", ""]), '"grüße\\n\\u0000",""'),
        (pa.array(["a", None, "a"]).dictionary_encode(), '"a",null,"a"'),
        (pa.array([b"\xff\x00", None], pa.binary()), '"/wA=",null'),
        (pa.array([b"ab"], pa.binary(2)), '"YWI="'),
        (pa.array([True, None]), "true,null"),
        (pa.nulls(2), "null,null"),
        (pa.array([dt.date(2024, 2, 29)]), '"2024-02-29"'),
        (pa.array([dt.time(1, 2, 3)]), '"01:02:03.000000"'),
        (pa.array([1700000000123456789], pa.timestamp("ns")), '"2023-11-14T22:13:20.123456789"'),
        (pa.array([0], pa.timestamp("s", "UTC")), '"1970-01-01T00:00:00Z"'),
        (pa.array([0], pa.timestamp("s", "Europe/Berlin")), '"1970-01-01T01:00:00+01:00"'),
        (pa.array([5], pa.duration("ms")), "5"),
        (pa.array([[1, None], None, []]), "[1,null],null,[]"),
        (pa.array([None, [b"a"], [None]], pa.large_list(pa.binary())), 'null,["YQ=="],[null]'),
        (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), "[1,2],null,[3,4]"),
        (
            pa.array([{"a": 1, "b": [None]}, None, {"a": None, "b": None}]),
            '{"a":1,"b":[null]},null,{"a":null,"b":null}',
        ),
        (
            pa.array([[("b", 0.5), ("a", None)], None, []], pa.map_(pa.string(), pa.float32())),
            '{"b":0.5,"a":null},null,{}',
        ),
        (pa.array([[(1, dt.date(2024, 1, 1))]], pa.map_(pa.int64(), pa.date32())), '{"1":"2024-01-01"}'),
    ],
)
def test_every_type_has_a_json_form(array: "pa.Array[Any]", expected: str) -> None:
    assert text(array) == expected
    assert text(pa.concat_arrays([pa.nulls(1, array.type), array]).slice(1)) == expected


def test_text_that_is_no_utf8_is_kept_as_base64_in_its_place() -> None:
    raw = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"\xff"]).buffers())
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), raw)
    assert text(raw) == '"fine",{"_raw_base64":"/w=="}'
    assert text(nested) == '["fine"],[{"_raw_base64":"/w=="}]'


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_json_value_can_be_dumped(value: object) -> None:
    assert json.loads(dump_json(value)) == value


def test_numbers_as_keys_are_texts_as_json_has_them() -> None:
    value = {3: 1.5, -7: [{2**40: "x"}], "a": {1.5: None}}
    assert json.loads(dump_json(value)) == json.loads(json.dumps(value))


def test_surrogates_become_replacement_characters() -> None:
    assert json.loads(dump_json({"a\udc00": ["\ud800", 2**70]})) == {"a\ufffd": ["\ufffd", 2**70]}


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        dump_json({1})


@pytest.mark.parametrize("value", [10**30, [10**30], (-(10**30),), {"a": ({"b": 2**64},)}])
def test_integers_of_any_size_keep_their_digits_wherever_they_stand(value: object) -> None:
    assert json.loads(dump_json(value)) == json.loads(json.dumps(value))
