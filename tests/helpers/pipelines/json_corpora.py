"""Generated corpora of JSON lines, as odd as `json.loads` reads them."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c", "ä 𝒳", "x.y", ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
INTEGERS = st.integers(-(2**70), 2**70) | st.integers(-3, 3) | st.sampled_from([10**18, 2**53 + 1, 2**63, 10**80])
TEXTS = st.text(max_size=6) | st.sampled_from(["2024-01-01", "1", "null", "\ud83d", "\x00", "é", "\u1100\u1161"])
NUMBERS = INTEGERS | st.floats() | st.sampled_from([-0.0, 1e300, 5e-324, 66.0])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


_COLUMNS = st.sampled_from(
    [
        INTEGERS,
        st.integers(-3, 3),
        st.floats(),
        TEXTS,
        st.booleans(),
        NUMBERS,
        st.sampled_from([2**53 + 1, 1, 0.5]),
        VALUES,
        st.lists(INTEGERS, max_size=3),
        st.fixed_dictionaries({"x": TEXTS, "y": st.none() | INTEGERS}),
    ]
)


@st.composite
def corpora(draw: st.DrawFn, *, num_rows: int) -> list[bytes]:
    """Lines whose columns mostly have values of one kind, as real ones do; missing ones and values of other kinds in between."""
    columns = draw(st.dictionaries(NAMES, _COLUMNS, min_size=1, max_size=4))
    oddness = draw(st.sampled_from([0.0, 0.02, 0.3]))
    chance = st.floats(0, 1, exclude_max=True)
    return [_line(draw, columns, lambda: draw(chance) < oddness) for _ in range(num_rows)]


def _line(draw: st.DrawFn, columns: dict[str, st.SearchStrategy[Any]], is_odd: Callable[[], bool]) -> bytes:
    row = {name: draw(VALUES if is_odd() else usual) for name, usual in columns.items() if not is_odd()}
    return json.dumps(row).encode()


LINES = st.lists(st.dictionaries(NAMES, VALUES, max_size=3).map(lambda row: json.dumps(row).encode()), max_size=8)
