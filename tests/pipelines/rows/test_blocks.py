"""One unit a block, opened only where it is worked on."""

import pyarrow as pa
import pytest

from pipelines.rows.blocks import ANSWERS, PREPARED, WORK, block_of, packed, packed_in, unpacked, value_in, with_packed


def test_values_come_out_as_they_went_in() -> None:
    block = block_of(**{PREPARED: {"a": (1, 2)}, WORK: None})
    assert value_in(block, PREPARED) == {"a": (1, 2)}
    assert value_in(block, WORK) is None


def test_a_replaced_value_leaves_the_others_untouched() -> None:
    before = block_of(**{PREPARED: "kept", WORK: "done"})
    after = with_packed(before, WORK, ANSWERS, packed([1]))
    assert after.column_names == [PREPARED, ANSWERS]
    assert value_in(after, ANSWERS) == [1]
    assert value_in(after, PREPARED) == "kept"


def test_a_value_is_taken_out_unopened() -> None:
    block = block_of(**{PREPARED: None, WORK: {"a": 1}})
    found = packed_in(block, WORK)
    assert found is not None
    assert unpacked(found) == {"a": 1}
    assert packed_in(block, PREPARED) is None
    assert value_in(with_packed(block, WORK, ANSWERS, None), ANSWERS) is None


def test_a_block_of_two_units_is_a_bug() -> None:
    two = pa.concat_tables([block_of(**{WORK: 1}), block_of(**{WORK: 2})])
    with pytest.raises(AssertionError, match="holds one unit"):
        value_in(two, WORK)
